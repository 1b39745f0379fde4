//! The rows of several data blocks, in the proportion of their weights.

use super::sequences::Sequences;
use crate::lang::pipeline::{Shuffle, Stop, Weigh};
use crate::random::Random;

/// Which rows are drawn for a mix is a stream of the seed that neither the epochs nor the holdout use.
const MIX_STREAM: u64 = u64::MAX - 1;

/// Which rows of each block are in the mix, in their order; a row stands there as often as it comes.
///
/// A block that has `n` rows (or tokens) and weight `w` is used up when the mix has `w / sum of weights` of it. By tokens,
/// a block gives rows until it has given its share, so it may exceed it by part of a row. Blocks without weights give
/// all that they have.
pub(super) fn draw(
    blocks: &[&Sequences],
    weights: &[Option<f64>],
    by: Weigh,
    stop: Stop,
    shuffle: Shuffle,
) -> Vec<Vec<u32>> {
    let amount = |rows: &Sequences| match by {
        Weigh::Rows => rows.len() as u64,
        Weigh::Tokens => rows.tokens(),
    };
    let all = |rows: &Sequences| (0..rows.len() as u32).collect::<Vec<_>>();
    let Some(weights) = weights.iter().copied().collect::<Option<Vec<f64>>>() else {
        return blocks.iter().map(|rows| all(rows)).collect();
    };
    // How much one unit of weight is worth where this block is just used up.
    let units = blocks.iter().zip(&weights).map(|(rows, weight)| amount(rows) as f64 / weight);
    let unit = match stop {
        Stop::First => units.fold(f64::INFINITY, f64::min),
        Stop::All => units.fold(0.0, f64::max),
    };
    let one = |(i, (rows, weight)): (usize, (&&Sequences, &f64))| {
        if rows.is_empty() {
            return Vec::new();
        }
        let wanted = (unit * weight).round() as u64;
        let mut pool = all(rows);
        match shuffle {
            Shuffle::None => {}
            Shuffle::Seed(seed) | Shuffle::ByLength(seed) => {
                Random::stream(seed, MIX_STREAM - i as u64).shuffle(&mut pool);
            }
        }
        let (mut drawn, mut given) = (Vec::new(), 0);
        for row in pool.iter().cycle() {
            if given >= wanted {
                break;
            }
            given += match by {
                Weigh::Rows => 1,
                Weigh::Tokens => rows.length(*row as usize) as u64,
            };
            drawn.push(*row);
        }
        drawn.sort_unstable();
        drawn
    };
    blocks.iter().zip(&weights).enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of these lengths.
    fn rows(lengths: &[usize]) -> Sequences {
        let mut rows = Sequences::default();
        lengths.iter().for_each(|length| rows.push(&vec![1; *length], &vec![1; *length]));
        rows
    }

    #[test]
    fn weights_are_proportions() {
        let (long, short) = (rows(&[4; 12]), rows(&[2; 3]));
        let check = |weights: [Option<f64>; 2], by, stop, expected: [usize; 2]| {
            for shuffle in [Shuffle::None, Shuffle::Seed(1)] {
                let drawn = draw(&[&long, &short], &weights, by, stop, shuffle);
                assert_eq!(
                    drawn.iter().map(Vec::len).collect::<Vec<_>>(),
                    expected,
                    "{weights:?} {by:?} {stop:?}"
                );
                assert!(drawn.iter().all(|rows| rows.is_sorted()));
            }
        };
        check([None, None], Weigh::Rows, Stop::First, [12, 3]);
        // 2 : 1, and there are 3 of the second.
        check([Some(2.0), Some(1.0)], Weigh::Rows, Stop::First, [6, 3]);
        // 2 : 1, and there are 12 of the first: the second comes twice.
        check([Some(2.0), Some(1.0)], Weigh::Rows, Stop::All, [12, 6]);
        // 48 tokens and 6: 1 : 1 stops at 6 tokens, which are one row and a half of the first.
        check([Some(1.0), Some(1.0)], Weigh::Tokens, Stop::First, [2, 3]);
        check([Some(1.0), Some(1.0)], Weigh::Tokens, Stop::All, [12, 24]);
    }
}
