//! What an exit costs at every depth.

use badge_core::config::ModelConfig;
use badge_core::cost::flops;
use badge_core::exit::Depth;
use badge_lab::evaluation::model_shape;
use badge_lab::table::{Column, Table};
use serde::Serialize;

/// Floating-point operations of one row.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    tokens: usize,
    /// The plain backbone with one exit.
    plain_mflops: f64,
    /// One exit by itself, without its bypass and what Global Past-Future adds.
    exit_macs: u64,
    /// One bypass.
    bypass_macs: u64,
    exits: Vec<ExitCost>,
}

/// A row that leaves at this depth, every exit on the way evaluated.
#[derive(Debug, Serialize)]
struct ExitCost {
    depth: usize,
    mflops: f64,
    /// Of the plain backbone's.
    share_of_plain: f64,
    /// What all exits on the way take of `mflops`, their bypasses left out.
    exit_share: f64,
    /// What bypasses take of `mflops`.
    bypass_share: f64,
}

impl Cost {
    pub(super) fn of(config: &ModelConfig, tokens: usize) -> Self {
        let shape = model_shape(config);
        let mega = |macs: u64| flops(macs) as f64 / 1e6;
        let plain = shape.plain_macs(tokens);
        let plan = config.exits().exits;
        let exit_cost = |(index, depth): (usize, &Depth)| {
            let macs = shape.macs_to(*depth, tokens, plan.depths());
            let bypasses = (index + 1) as u64 * shape.bypass_macs();
            let exits = macs - bypasses - shape.blocks_macs(*depth, tokens);
            ExitCost {
                depth: depth.0,
                mflops: mega(macs),
                share_of_plain: macs as f64 / plain as f64,
                exit_share: exits as f64 / macs as f64,
                bypass_share: bypasses as f64 / macs as f64,
            }
        };
        Self {
            tokens,
            plain_mflops: mega(plain),
            exit_macs: shape.exit_macs(tokens),
            bypass_macs: shape.bypass_macs(),
            exits: plan.depths().iter().enumerate().map(exit_cost).collect(),
        }
    }

    pub(super) fn report(&self) -> String {
        let mut table = Table::new([
            Column::number("exit"),
            Column::number("MFLOPs"),
            Column::number("of plain"),
            Column::number("exits' share"),
            Column::number("bypasses' share"),
        ]);
        for exit in &self.exits {
            table.push([
                exit.depth.to_string(),
                format!("{:.2}", exit.mflops),
                format!("{:.1} %", 100.0 * exit.share_of_plain),
                format!("{:.3} %", 100.0 * exit.exit_share),
                format!("{:.3} %", 100.0 * exit.bypass_share),
            ]);
        }
        format!(
            "cost of a row of {} tokens; the plain backbone with one exit takes {:.2} MFLOPs\n\
             one exit takes {} multiply-accumulates, its bypass {}\n{}",
            self.tokens,
            self.plain_mflops,
            self.exit_macs,
            self.bypass_macs,
            table.to_text()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_exit_costs_the_plain_backbone_and_every_exit_on_the_way() {
        let config = serde_json::json!({
            "model_type": "albert", "vocab_size": 30000, "hidden_size": 768,
            "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
            "early_exit": {
                "version": 1, "exits": [4, 8, 12], "pooler": "none", "bypass": {"rank": 16}
            }
        });
        let config = ModelConfig::from_json(config.to_string().as_bytes()).unwrap();
        let cost = Cost::of(&config, 128);
        assert_eq!(cost.exits.len(), 3);
        let deepest = &cost.exits[2];
        // Two more classifiers and three bypasses than the plain backbone.
        let extra = 2.0 * (2.0 * 2.0 * 768.0 + 3.0 * 2.0 * 16.0 * 768.0) / 1e6;
        assert!((deepest.mflops - cost.plain_mflops - extra).abs() < 1e-6);
        let bypasses = 2.0 * 3.0 * 2.0 * 16.0 * 768.0 / 1e6 / deepest.mflops;
        assert!((deepest.bypass_share - bypasses).abs() < 1e-12);
        let shares: Vec<_> = cost.exits.iter().map(|exit| exit.share_of_plain).collect();
        assert!((shares[0] - 1.0 / 3.0).abs() < 1e-2, "{shares:?}");
    }
}
