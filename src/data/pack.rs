//! Several rows in one sequence.

use std::collections::BTreeSet;

use super::sequences::Sequences;

/// Packs rows into sequences of at most `capacity` tokens: best-fit decreasing. The longest row goes
/// first, each into the sequence where the least room stays free. The same rows give the same
/// sequences always; inside them, and among them, rows keep the order of the file as far as that goes.
///
/// No row may be longer than `capacity`.
pub fn pack(rows: &Sequences, capacity: usize) -> Sequences {
    let length = |row: u32| rows.length(row as usize);
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    order.sort_by_key(|&row| (std::cmp::Reverse(length(row)), row));

    let mut groups: Vec<Vec<u32>> = Vec::new();
    let mut open: BTreeSet<(usize, usize)> = BTreeSet::new(); // (room, group), groups with room only
    for row in order {
        let length = length(row);
        assert!(length <= capacity, "a row of {length} tokens does not fit {capacity}");
        let (room, group) = match open.range((length, 0)..).next().copied() {
            Some(best) => {
                open.remove(&best);
                best
            }
            None => {
                groups.push(Vec::new());
                (capacity, groups.len() - 1)
            }
        };
        groups[group].push(row);
        if room > length {
            open.insert((room - length, group));
        }
    }
    for group in &mut groups {
        group.sort_unstable();
    }
    groups.sort_unstable_by_key(|group| group[0]);
    rows.join(&groups)
}

#[cfg(test)]
mod tests {
    use super::super::sequences::IGNORE;
    use super::*;

    /// Rows of these lengths, each filled with its number, as the rows' numbers a sequence.
    fn check(lengths: &[usize], capacity: usize, expected: &[&[u32]]) {
        let mut rows = Sequences::default();
        for (row, &length) in lengths.iter().enumerate() {
            let ids = vec![row as u32; length];
            let mut labels = ids.clone();
            labels[length - 1] = IGNORE;
            rows.push(&ids, &labels);
        }
        let packed = pack(&rows, capacity);
        let shown: Vec<Vec<u32>> = packed
            .iter()
            .map(|sequence| {
                let mut rows = sequence.ids.to_vec();
                rows.dedup();
                let lengths: Vec<u32> = rows.iter().map(|&row| lengths[row as usize] as u32).collect();
                assert_eq!(sequence.segments, Some(lengths));
                // No position predicts an id of another row.
                let alien = |(id, label): (&u32, &u32)| *label != IGNORE && id != label;
                assert!(!sequence.ids.iter().zip(sequence.labels.iter()).any(alien));
                rows
            })
            .collect();
        assert_eq!(shown, expected);
        assert_eq!(packed.trained(), rows.trained());
    }

    #[test]
    fn the_longest_row_goes_where_the_least_room_stays() {
        // 6 | 5 | 5 joins a 5? no, 10 of 10: rows 1 and 2; 4 joins 6; 3 opens a new one.
        check(&[6, 5, 5, 4, 3], 10, &[&[0, 3], &[1, 2], &[4]]);
        // 7 (room 3), 6 (room 4), 3 fits best behind 7, 2 behind 6, 2 behind 6.
        check(&[2, 7, 3, 6, 2], 10, &[&[0, 3, 4], &[1, 2]]);
    }

    #[test]
    fn rows_that_fill_a_sequence_stand_alone() {
        check(&[4, 4], 4, &[&[0], &[1]]);
        check(&[], 4, &[]);
    }
}
