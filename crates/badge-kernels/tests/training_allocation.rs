//! What runs at every step of training allocates nothing.

use badge_kernels::allocation::CountingAllocator;
use badge_kernels::gemm::Precision;
use badge_kernels::isa::Isa;
use badge_kernels::matrix::Matrix;
use badge_kernels::threads::Pool;
use badge_kernels::training::Factor;
use badge_kernels::training::adamw::{AdamWStep, Moments, adamw};
use badge_kernels::training::products::{GradientScratch, TrainedMatrix, weight_gradient};
use badge_kernels::training::reductions::{bias_gradient, sum_of_squares};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

#[test]
fn packing_gradients_and_the_optimiser_allocate_nothing() {
    let (t, n, k) = (37, 70, 50);
    let pool = Pool::new(Isa::best(), 2);
    let mut scratch = GradientScratch::new(&pool);
    let (x, dy) = (Matrix::<f32>::zeros(t, k), Matrix::<f32>::zeros(t, n));
    let mut weights = vec![0.5; n * k];
    let [mut gradient, mut mean, mut square] = [(); 3].map(|()| vec![0.0; n * k]);
    let mut bias = vec![0.0; n];
    let mut matrices =
        [Precision::F32, Precision::Bf16].map(|precision| TrainedMatrix::new(n, k, precision));
    let step = AdamWStep {
        beta1: 0.9,
        fresh1: 0.1,
        beta2: 0.999,
        fresh2: 0.001,
        eps: 1e-8,
        clip: 1.0,
        keep: 1.0,
        rate: 1e-3,
        square_correction: 1.0,
    };
    // The first round is not counted: a thread allocates what it needs to wait when it first does.
    let mut before = 0;
    for round in 0..3 {
        if round == 1 {
            before = ALLOCATOR.allocations();
        }
        for matrix in &mut matrices {
            matrix.pack(&pool, &weights);
        }
        let (dy, x) = (Factor::F32(dy.rows(t)), Factor::F32(x.rows(t)));
        weight_gradient(&pool, dy, x, &mut scratch, &mut gradient);
        bias_gradient(&pool, dy, &mut bias);
        assert_eq!(sum_of_squares(&pool, &gradient), 0.0);
        let moments = Moments {
            mean: &mut mean,
            square: &mut square,
        };
        adamw(&pool, &step, &mut weights, &gradient, moments);
    }
    assert_eq!(ALLOCATOR.allocations(), before);
}
