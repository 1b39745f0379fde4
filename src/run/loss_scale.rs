//! What the loss is multiplied by so that gradients in fp16 do not vanish: as large as they bear.
//!
//! Source: Micikevicius et al. 2018, "Mixed Precision Training", section 3.2; the numbers are those of PyTorch's
//! `GradScaler`.

use serde::{Deserialize, Serialize};

/// The factor, and how many steps have gone well with it. A part of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    pub factor: f64,
    pub good_steps: u64,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { factor: 65536.0, good_steps: 0 }
    }
}

/// Good steps after which the factor doubles.
const GROWTH_INTERVAL: u64 = 2000;

/// Gradients that overflow at less are too large by themselves.
const SMALLEST: f64 = 1.0;

impl LossScale {
    /// A step has gone well.
    pub fn good(&mut self) {
        self.good_steps += 1;
        if self.good_steps == GROWTH_INTERVAL {
            *self = Self { factor: 2.0 * self.factor, good_steps: 0 };
        }
    }

    /// A gradient has overflowed; false where nothing is left to halve.
    pub fn overflow(&mut self) -> bool {
        *self = Self { factor: self.factor / 2.0, good_steps: 0 };
        self.factor >= SMALLEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_after_two_thousand_good_steps_and_halves_at_once() {
        let mut scale = LossScale::default();
        let after = |scale: &mut LossScale, n: u64| {
            (0..n).for_each(|_| scale.good());
            (scale.factor, scale.good_steps)
        };
        assert_eq!(after(&mut scale, 1999), (65536.0, 1999));
        assert_eq!(after(&mut scale, 1), (131_072.0, 0));
        assert_eq!(after(&mut scale, 7), (131_072.0, 7));
        assert!(scale.overflow());
        assert_eq!(scale, LossScale::default(), "and counts anew");
        assert!((0..16).all(|_| scale.overflow()), "down to 1");
        assert!(!scale.overflow());
    }
}
