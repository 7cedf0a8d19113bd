//! Bias added to every row, with a column sum as its gradient.

use super::vector::{for_each_row, sum_rows};
use super::{tensor_like, values, with_values};
use crate::framework::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor};

/// `y = x + bias` for rows `x: [N, D]` and `bias: [D]`.
pub(crate) fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => x.contiguous()?.apply_op2(bias, AddBias),
        _ => x.broadcast_add(bias),
    }
}

struct AddBias;

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, bias) = (values(x, x_layout)?, values(bias, bias_layout)?);
        let mut y = vec![0.0; x.len()];
        for_each_row(
            &mut y,
            bias.len(),
            #[inline(always)]
            |row, y| {
                let x = &x[row * y.len()..][..y.len()];
                for ((y, x), b) in y.iter_mut().zip(x).zip(bias) {
                    *y = x + b;
                }
            },
        );
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = bias.elem_count();
        let sums = with_values(gradient, |gradient| {
            sum_rows(
                gradient.len() / width,
                width,
                #[inline(always)]
                |row, sums| {
                    let gradient = &gradient[row * width..][..width];
                    sums.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
                },
            )
        })?;
        Ok((Some(gradient.clone()), Some(tensor_like(sums, bias)?)))
    }
}
