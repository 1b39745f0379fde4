//! Whose turn it is: from the number of a turn to the group that trains, the same in every run of a plan.
//!
//! Only [`Visits::Importance`] depends on what a run measures; a [`Queue`] holds that, and a checkpoint keeps it.

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// In which way the groups of a plan follow one another.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Visits {
    /// One after the other, again and again.
    Fixed,
    /// Each cycle has an order of its own.
    Redrawn { seed: u64 },
    /// Each turn draws `size` of so many units, whatever was drawn before; the groups are all such sets.
    Drawn { seed: u64, units: usize, size: usize },
    /// Each cycle begins with the group whose gradient was longest the last time; the first is in the order of the
    /// groups.
    Importance,
    /// One after the other, and the last keeps its turn.
    Growing,
}

impl Visits {
    /// The group of a turn, counted from 0, where nothing has been measured.
    pub fn group(&self, turn: u64, n_groups: usize) -> usize {
        let n = n_groups as u64;
        match self {
            Visits::Fixed | Visits::Importance => (turn % n) as usize,
            Visits::Growing => turn.min(n - 1) as usize,
            Visits::Redrawn { seed } => {
                let mut order: Vec<usize> = (0..n_groups).collect();
                Random::named(*seed, &format!("cycle {}", turn / n)).shuffle(&mut order);
                order[(turn % n) as usize]
            }
            Visits::Drawn { seed, units, size } => {
                let mut drawn: Vec<usize> = (0..*units).collect();
                Random::named(*seed, &format!("turn {turn}")).shuffle(&mut drawn);
                drawn.truncate(*size);
                drawn.sort_unstable();
                rank(&drawn, *units)
            }
        }
    }

    /// How many of `steps` updates each group gets, or is to be expected to get.
    pub fn shares(&self, steps: u64, dwell: u64, n_groups: usize) -> Vec<f64> {
        let n = n_groups as u64;
        let round = n.saturating_mul(dwell);
        let (whole, rest) = ((steps / round) * dwell, steps % round);
        let in_turn = |group: u64, steps: u64| steps.saturating_sub(group * dwell).min(dwell);
        let share = |group: u64| match self {
            Visits::Fixed => (whole + in_turn(group, rest)) as f64,
            Visits::Growing if group + 1 == n => steps.saturating_sub(group.saturating_mul(dwell)) as f64,
            Visits::Growing => in_turn(group, steps) as f64,
            Visits::Redrawn { .. } | Visits::Importance => whole as f64 + rest as f64 / n as f64,
            Visits::Drawn { .. } => steps as f64 / n as f64,
        };
        (0..n).map(share).collect()
    }
}

/// The number of sets of `size` out of `n`; None if it does not fit.
pub fn n_sets(n: usize, size: usize) -> Option<usize> {
    (0..size).try_fold(1_usize, |sets, i| Some(sets.checked_mul(n.checked_sub(i)?)? / (i + 1)))
}

/// All sets of `size` out of `n`, in the order of [`rank`].
pub fn sets(n: usize, size: usize) -> Vec<Vec<usize>> {
    let mut sets = vec![Vec::new()];
    for i in 0..size {
        let longer = |set: Vec<usize>| {
            let next = set.last().map_or(0, |last| last + 1);
            // Enough must be left for the places that are still open.
            (next..n + 1 + i - size).map(move |unit| set.iter().copied().chain([unit]).collect())
        };
        sets = sets.into_iter().flat_map(longer).collect();
    }
    sets
}

/// The place of a rising set among all sets of its size out of `n`, in the order of a dictionary.
fn rank(set: &[usize], n: usize) -> usize {
    let mut rank = 0;
    let mut next = 0;
    for (i, unit) in set.iter().enumerate() {
        for other in next..*unit {
            rank += n_sets(n - 1 - other, set.len() - 1 - i).expect("the plan has counted the sets");
        }
        next = unit + 1;
    }
    rank
}

/// The order of the turns as the measurements of a run make it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// The groups of the current cycle, first to last.
    order: Vec<usize>,
    /// The norm of each group's gradient at its latest update, before clipping.
    norms: Vec<Option<f64>>,
}

impl Queue {
    pub fn new(n_groups: usize) -> Self {
        Self { order: (0..n_groups).collect(), norms: vec![None; n_groups] }
    }

    /// The group of a turn of the current cycle.
    pub fn group(&self, turn: u64) -> usize {
        self.order[(turn % self.order.len() as u64) as usize]
    }

    /// Takes note of a gradient's norm.
    pub fn measured(&mut self, group: usize, norm: f64) {
        self.norms[group] = Some(norm);
    }

    /// A cycle has ended: the longest gradient comes first, equal ones as they were.
    pub fn next_cycle(&mut self) {
        let norm = |group: &usize| self.norms[*group].unwrap_or(f64::INFINITY);
        self.order.sort_by(|a, b| norm(b).total_cmp(&norm(a)));
    }

    /// Whether it is a queue of so many groups.
    pub fn fits(&self, n_groups: usize) -> bool {
        let mut order = self.order.clone();
        order.sort_unstable();
        order.into_iter().eq(0..n_groups) && self.norms.len() == n_groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(visits: &Visits, turns: u64, n: usize) -> Vec<usize> {
        (0..turns).map(|turn| visits.group(turn, n)).collect()
    }

    #[test]
    fn a_redrawn_cycle_visits_every_group_once() {
        let visits = Visits::Redrawn { seed: 7 };
        let seen = groups(&visits, 40, 10);
        let cycles: Vec<&[usize]> = seen.chunks(10).collect();
        for cycle in &cycles {
            let mut sorted = cycle.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert!(cycles[0] != cycles[1] && cycles[1] != cycles[2], "{cycles:?}");
        assert_ne!(seen, groups(&Visits::Redrawn { seed: 8 }, 40, 10));
    }

    #[test]
    fn sets_stand_where_their_rank_says() {
        assert_eq!(sets(4, 2), [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
        for (n, size) in [(1, 1), (5, 1), (7, 3), (32, 2), (6, 6)] {
            let all = sets(n, size);
            assert_eq!(Some(all.len()), n_sets(n, size));
            assert!(all.iter().enumerate().all(|(place, set)| rank(set, n) == place), "{size} of {n}");
        }
        assert_eq!((n_sets(32, 2), n_sets(3, 4), n_sets(200, 100)), (Some(496), Some(0), None));
    }

    #[test]
    fn draws_are_even() {
        let visits = Visits::Drawn { seed: 1, units: 4, size: 2 };
        let mut counts = [0; 6];
        for group in groups(&visits, 6000, 6) {
            counts[group] += 1;
        }
        // 1,000 each, with a deviation of 29.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_longest_gradient_comes_first() {
        let mut queue = Queue::new(4);
        let order = |queue: &Queue| (0..4).map(|turn| queue.group(turn)).collect::<Vec<_>>();
        assert_eq!(order(&queue), [0, 1, 2, 3]);
        for (group, norm) in [(0, 0.5), (1, 2.0), (2, 0.5), (3, 3.0)] {
            queue.measured(group, norm);
        }
        assert_eq!(order(&queue), [0, 1, 2, 3], "a cycle keeps its order");
        queue.next_cycle();
        assert_eq!(order(&queue), [3, 1, 0, 2]);
        let kept: Queue = serde_json::from_str(&serde_json::to_string(&queue).unwrap()).unwrap();
        assert_eq!(kept, queue);
        assert!(queue.fits(4) && !queue.fits(5));
    }

    #[test]
    fn shares_add_up() {
        let all = [
            Visits::Fixed,
            Visits::Redrawn { seed: 1 },
            Visits::Drawn { seed: 1, units: 5, size: 1 },
            Visits::Importance,
            Visits::Growing,
        ];
        for visits in all {
            for steps in [0, 3, 7, 10, 23, 1000] {
                let shares = visits.shares(steps, 2, 5);
                assert!((shares.iter().sum::<f64>() - steps as f64).abs() < 1e-9, "{visits:?}: {shares:?}");
            }
        }
        assert_eq!(Visits::Growing.shares(11, 2, 4), [2.0, 2.0, 2.0, 5.0]);
        assert_eq!(Visits::Fixed.shares(11, 2, 4), [4.0, 3.0, 2.0, 2.0]);
    }
}
