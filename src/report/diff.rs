//! What differs between two plans.
//!
//! Stages are paired by kind and name; those that find no partner are paired with what is left of their kind, in
//! order, so that another name alone does not hide what is the same. Groups are paired by what they train.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use crate::lock::{Drift, Lock};

use super::facts::{Fact, StageFacts, Summary, Unit, exact, short};
use super::names;
use super::table::columns;

/// A fact that is not the same in both; None where it does not hold at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub name: String,
    pub unit: Unit,
    pub old: Option<Json>,
    pub new: Option<Json>,
}

impl Change {
    /// By how much an amount has grown, as a share of the old one.
    pub fn relative(&self) -> Option<f64> {
        let number = |value: &Option<Json>| value.as_ref()?.as_f64();
        let (old, new) = (number(&self.old)?, number(&self.new)?);
        (self.unit.is_amount() && old != 0.0).then(|| (new - old) / old.abs())
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct GroupChange {
    pub names: Vec<String>,
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum StageChange {
    /// Only the second plan has it.
    Added(StageFacts),
    /// Only the first plan has it.
    Removed(StageFacts),
    Changed {
        kind: String,
        old_name: String,
        new_name: String,
        changes: Vec<Change>,
        /// Of groups that both have.
        groups: Vec<GroupChange>,
    },
}

/// What differs, in the order of the second plan; stages that only the first has come after it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    pub stages: Vec<StageChange>,
    pub whole: Vec<Change>,
    /// Files that have the same path and another content, where both sides' contents are known.
    pub inputs: Vec<Drift>,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty() && self.whole.is_empty() && self.inputs.is_empty()
    }
}

/// Compares two plans, and their inputs where both are known.
pub fn diff(old: &Summary, new: &Summary, inputs: Option<(&Lock, &Lock)>) -> Difference {
    let pairs = pairs(&old.stages, &new.stages);
    let partner = |idx: usize| pairs.iter().find(|(_, new)| *new == idx).map(|(old, _)| *old);
    let mut difference = Difference::default();
    for (idx, stage) in new.stages.iter().enumerate() {
        match partner(idx) {
            None => difference.stages.push(StageChange::Added(stage.clone())),
            Some(at) => difference.stages.extend(compare(&old.stages[at], stage, |from| {
                // A stage that is only called otherwise is the same stage.
                let at = old.stages.iter().position(|stage| stage.name == from)?;
                let (_, new_at) = pairs.iter().find(|(old, _)| *old == at)?;
                Some(new.stages[*new_at].name.clone())
            })),
        }
    }
    for (idx, stage) in old.stages.iter().enumerate() {
        if !pairs.iter().any(|(old, _)| *old == idx) {
            difference.stages.push(StageChange::Removed(stage.clone()));
        }
    }
    if !pairs.is_sorted_by_key(|(old, _)| *old) {
        let listed = |stages: &[StageFacts]| {
            Some(stages.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>().into())
        };
        difference.whole.push(Change {
            name: "order of the stages".to_string(),
            unit: Unit::Text,
            old: listed(&old.stages),
            new: listed(&new.stages),
        });
    }
    difference.whole.extend(changes(&old.whole, &new.whole));
    if let Some((old, new)) = inputs {
        let drifts = old.drift(new).into_iter();
        // Another path is a fact of the plan.
        difference.inputs = drifts
            .filter(|drift| drift.is_input())
            .filter(|drift| match drift {
                Drift::Changed { .. } => true,
                Drift::Param { .. } | Drift::New(_) | Drift::Gone(_) => false,
            })
            .collect();
    }
    difference
}

/// Which stages belong together, as places in both lists, in the order of the second.
fn pairs(old: &[StageFacts], new: &[StageFacts]) -> Vec<(usize, usize)> {
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for by_name in [true, false] {
        for (new_at, stage) in new.iter().enumerate() {
            if pairs.iter().any(|(_, taken)| *taken == new_at) {
                continue;
            }
            let found = old.iter().enumerate().position(|(old_at, other)| {
                other.kind == stage.kind
                    && (!by_name || other.name == stage.name)
                    && !pairs.iter().any(|(taken, _)| *taken == old_at)
            });
            pairs.extend(found.map(|old_at| (old_at, new_at)));
        }
    }
    pairs.sort_by_key(|(_, new)| *new);
    pairs
}

/// What differs between two stages; `renamed` gives the name that a stage of the first plan has in the second.
fn compare(
    old: &StageFacts,
    new: &StageFacts,
    renamed: impl Fn(&str) -> Option<String>,
) -> Option<StageChange> {
    let mut list = Vec::new();
    let from = old.from.as_ref().map(|from| renamed(from).unwrap_or_else(|| from.clone()));
    if from != new.from {
        list.push(Change {
            name: "takes up".to_string(),
            unit: Unit::Text,
            old: old.from.clone().map(Json::from),
            new: new.from.clone().map(Json::from),
        });
    }
    list.extend(changes(&old.facts, &new.facts));
    let groups: Vec<GroupChange> = new
        .groups
        .iter()
        .filter_map(|group| {
            let known = old.groups.iter().find(|known| known.names == group.names)?;
            let changes = changes(&known.facts, &group.facts);
            (!changes.is_empty()).then(|| GroupChange { names: group.names.clone(), changes })
        })
        .collect();
    if list.is_empty() && groups.is_empty() && old.name == new.name {
        return None;
    }
    Some(StageChange::Changed {
        kind: new.kind.clone(),
        old_name: old.name.clone(),
        new_name: new.name.clone(),
        changes: list,
        groups,
    })
}

/// The facts that are not the same, in the order of the second list; what only the first has stands where it stood.
fn changes(old: &[Fact], new: &[Fact]) -> Vec<Change> {
    let find = |facts: &[Fact], name: &str| facts.iter().position(|fact| fact.name == name);
    let mut order: Vec<(&str, Unit)> = new.iter().map(|fact| (fact.name.as_str(), fact.unit)).collect();
    let mut at = 0;
    for fact in old {
        match order.iter().position(|(name, _)| *name == fact.name) {
            Some(known) => at = known + 1,
            None => {
                order.insert(at, (&fact.name, fact.unit));
                at += 1;
            }
        }
    }
    let value = |facts: &[Fact], name| find(facts, name).map(|at| facts[at].value.clone());
    let changes = order.into_iter().map(|(name, unit)| {
        let (old, new) = (value(old, name), value(new, name));
        Change { name: name.to_string(), unit, old, new }
    });
    changes.filter(|change| change.old != change.new).collect()
}

// ------------------------------------------------------------------------------------- for people

/// The difference as text; nothing where there is none.
pub fn text(difference: &Difference) -> String {
    let mut parts = Vec::new();
    let mut told: Vec<(&Change, &str)> = Vec::new();
    for stage in &difference.stages {
        parts.push(match stage {
            StageChange::Added(stage) => alone("only in the second", stage),
            StageChange::Removed(stage) => alone("only in the first", stage),
            StageChange::Changed { kind, old_name, new_name, changes, groups } => {
                let mut text = match old_name == new_name {
                    true => format!("{kind} {new_name}\n"),
                    false => format!("{kind} {old_name} → {new_name}\n"),
                };
                // Stages share blocks: what one has told, the next need not tell again.
                let known =
                    |change: &Change| told.iter().find(|(known, _)| *known == change).map(|(_, s)| *s);
                let (as_before, fresh): (Vec<&Change>, Vec<&Change>) =
                    changes.iter().partition(|change| shared(change) && known(change).is_some());
                text += &list(fresh.iter().copied(), groups);
                for same in as_before.chunk_by(|a, b| known(a) == known(b)) {
                    let names: Vec<&str> = same.iter().map(|change| change.name.as_str()).collect();
                    let stage = known(same[0]).unwrap_or_default();
                    let _ = writeln!(text, "  as in {stage}: {}", names.join(", "));
                }
                told.extend(fresh.into_iter().map(|change| (change, new_name.as_str())));
                text
            }
        });
    }
    if !difference.inputs.is_empty() {
        let mut text = "inputs\n".to_string();
        for drift in &difference.inputs {
            let _ = writeln!(text, "  {drift}");
        }
        parts.push(text);
    }
    if !difference.whole.is_empty() {
        parts.push(format!("in all\n{}", list(&difference.whole, &[])));
    }
    parts.join("\n")
}

/// Whether a change is one of a block or file that several stages read, and not a figure of the stage.
fn shared(change: &Change) -> bool {
    change.unit == Unit::Text || change.unit == Unit::Count
}

fn alone(which: &str, stage: &StageFacts) -> String {
    let told = stage.facts.iter().find(|fact| fact.name == "peak");
    let peak = told.map_or(String::new(), |fact| format!(", peak {}", short(fact.unit, &fact.value)));
    format!("{} {}: {which}{peak}\n", stage.kind, stage.name)
}

/// Values of more characters than this stand below each other.
const WIDE: usize = 28;

/// One line a change; long values have two.
fn list<'c>(changes: impl IntoIterator<Item = &'c Change>, groups: &[GroupChange]) -> String {
    let (mut rows, mut long) = (Vec::new(), String::new());
    for change in changes {
        let (old, new) = values(change);
        if old.chars().count().max(new.chars().count()) > WIDE {
            let _ = writeln!(long, "  {}\n      {old}\n    → {new}", change.name);
        } else {
            rows.push(vec![change.name.clone(), old, "→".to_string(), new, percent(change)]);
        }
    }
    rows.extend(by_group(groups));
    columns(&rows, &[1, 4]) + &long
}

/// Memory and size of the groups that both have; neighbours that changed alike share a line.
fn by_group(groups: &[GroupChange]) -> Vec<Vec<String>> {
    let mut rows: Vec<(String, Vec<String>, Vec<String>)> = Vec::new();
    for GroupChange { names: group, changes } in groups {
        // The work of all steps is told.
        for change in changes.iter().filter(|change| change.unit != Unit::Work) {
            let (old, new) = values(change);
            let cells = vec![old, "→".to_string(), new, percent(change)];
            match rows.last_mut() {
                Some((fact, known, last)) if *fact == change.name && *last == cells => {
                    known.push(names(group));
                }
                _ => rows.push((change.name.clone(), vec![names(group)], cells)),
            }
        }
    }
    let line = |(fact, groups, cells): (String, Vec<String>, Vec<String>)| {
        let groups = match groups.as_slice() {
            [first, .., last] if groups.len() > 3 => format!("{first} ... {last} ({} groups)", groups.len()),
            groups => groups.join(", "),
        };
        [vec![format!("{fact} of {groups}")], cells].concat()
    };
    rows.into_iter().map(line).collect()
}

/// Both values, in full where they would look the same.
fn values(change: &Change) -> (String, String) {
    let say = |how: fn(Unit, &Json) -> String, value: &Option<Json>| match value {
        Some(value) => how(change.unit, value),
        None => "-".to_string(),
    };
    let (old, new) = (say(short, &change.old), say(short, &change.new));
    if old == new { (say(exact, &change.old), say(exact, &change.new)) } else { (old, new) }
}

/// `−20.8 %`, `+0.0031 %`; many times as much is said so: `x 12.5`.
fn percent(change: &Change) -> String {
    let Some(share) = change.relative() else { return String::new() };
    let sign = if share < 0.0 { '−' } else { '+' };
    let percent = 100.0 * share.abs();
    match percent {
        900.0.. => format!("x {:.1}", 1.0 + share),
        0.05.. => format!("{sign}{percent:.1} %"),
        // Two digits that say something.
        _ => format!("{sign}{percent:.*} %", (1.0 - percent.log10().floor()) as usize),
    }
}

// ------------------------------------------------------------------------------------- for machines

/// The difference as JSON.
pub fn json(difference: &Difference, old: &str, new: &str) -> Json {
    let alone = |stage: &StageFacts, change: &str| {
        let facts = stage
            .facts
            .iter()
            .map(|fact| json!({ "fact": fact.name, "unit": fact.unit.name(), "value": fact.value }));
        json!({ "kind": stage.kind, "name": stage.name, "change": change, "facts": facts.collect::<Vec<_>>() })
    };
    let stages = difference.stages.iter().map(|stage| match stage {
        StageChange::Added(stage) => alone(stage, "added"),
        StageChange::Removed(stage) => alone(stage, "removed"),
        StageChange::Changed { kind, old_name, new_name, changes, groups } => {
            let groups =
                groups.iter().map(|group| json!({ "group": group.names, "facts": listed(&group.changes) }));
            json!({
                "kind": kind, "name": new_name, "old_name": old_name, "change": "changed",
                "facts": listed(changes), "groups": groups.collect::<Vec<_>>(),
            })
        }
    });
    let inputs = difference.inputs.iter().filter_map(|drift| match drift {
        Drift::Changed { was, is } => Some(json!({
            "role": is.role, "path": is.path,
            "old": { "bytes": was.bytes, "sha256": was.sha256 },
            "new": { "bytes": is.bytes, "sha256": is.sha256 },
        })),
        Drift::Param { .. } | Drift::New(_) | Drift::Gone(_) => None,
    });
    json!({
        "schema": 1, "old": old, "new": new, "same": difference.is_empty(),
        "stages": stages.collect::<Vec<_>>(),
        "inputs": inputs.collect::<Vec<_>>(),
        "whole": listed(&difference.whole),
    })
}

fn listed(changes: &[Change]) -> Vec<Json> {
    let change = |change: &Change| {
        json!({
            "fact": change.name, "unit": change.unit.name(), "old": change.old, "new": change.new,
            "relative": change.relative(),
        })
    };
    changes.iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::report::facts::GroupFacts;

    fn fact(name: &str, unit: Unit, value: impl Into<Json>) -> Fact {
        Fact { name: name.to_string(), unit, value: value.into() }
    }

    fn stage(kind: &str, name: &str, from: Option<&str>, facts: Vec<Fact>) -> StageFacts {
        let from = from.map(str::to_string);
        StageFacts { kind: kind.to_string(), name: name.to_string(), from, facts, groups: Vec::new() }
    }

    fn compared(old: Vec<StageFacts>, new: Vec<StageFacts>) -> Difference {
        let summary = |stages| Summary { stages, whole: Vec::new() };
        diff(&summary(old), &summary(new), None)
    }

    /// The lines for one stage whose facts change.
    #[track_caller]
    fn check(old: Vec<Fact>, new: Vec<Fact>, expected: Expect) {
        let text =
            text(&compared(vec![stage("train", "a", None, old)], vec![stage("train", "a", None, new)]));
        expected.assert_eq(&text);
    }

    #[test]
    fn what_is_the_same_is_not_shown() {
        let facts = || vec![fact("steps", Unit::Count, 3), fact("seed", Unit::Text, 1)];
        assert!(
            compared(vec![stage("train", "a", None, facts())], vec![stage("train", "a", None, facts())])
                .is_empty()
        );
        check(facts(), facts(), expect![""]);
    }

    #[test]
    fn amounts_change_by_a_share() {
        // 7,077,888 is 6.75 MiB and 5,308,416 three quarters of it.
        check(
            vec![
                fact("peak", Unit::Bytes, 7_077_888),
                fact("steps", Unit::Count, 3000),
                fact("rate", Unit::Rate, 2e-5),
                fact("work", Unit::Work, 1e12),
                fact("decay", Unit::Number, 0.01),
                fact("seed", Unit::Text, 1),
            ],
            vec![
                fact("peak", Unit::Bytes, 5_308_416),
                fact("steps", Unit::Count, 60_000),
                fact("rate", Unit::Rate, 3e-5),
                fact("work", Unit::Work, 1.5e12),
                fact("decay", Unit::Number, 0.015),
                fact("seed", Unit::Text, 2),
            ],
            expect![[r#"
                train a
                  peak    6.75 MiB → 5.06 MiB    −25.0 %
                  steps      3,000 → 60,000       x 20.0
                  rate        2e-5 → 3e-5        +50.0 %
                  work  1.00 TFLOP → 1.50 TFLOP  +50.0 %
                  decay       0.01 → 0.015       +50.0 %
                  seed           1 → 2
            "#]],
        );
    }

    #[test]
    fn what_looks_the_same_is_said_in_full() {
        check(
            vec![
                fact("peak", Unit::Bytes, 1 << 30),
                fact("groups", Unit::Text, json!(["a", "b", "c", "d", "e"])),
            ],
            vec![
                fact("peak", Unit::Bytes, (1 << 30) + 1024),
                fact("groups", Unit::Text, json!(["a", "b", "d", "c", "e"])),
            ],
            // 1024 of 2^30 are 0.0000954 %.
            expect![[r#"
                train a
                  peak   1,073,741,824 B → 1,073,742,848 B  +0.000095 %
                  groups   a, b, c, d, e → a, b, d, c, e
            "#]],
        );
    }

    #[test]
    fn facts_come_and_go_where_they_stand() {
        check(
            vec![fact("a", Unit::Count, 1), fact("b", Unit::Count, 2), fact("c", Unit::Count, 0)],
            vec![
                fact("a", Unit::Count, 2),
                fact("c", Unit::Count, 5),
                fact("d", Unit::Text, json!({ "seed": 7 })),
            ],
            expect![[r#"
                train a
                  a 1 → 2        +100.0 %
                  b 2 → -
                  c 0 → 5
                  d - → seed(7)
            "#]],
        );
    }

    #[test]
    fn long_values_stand_below_each_other() {
        let format = |prompt: &str| {
            vec![fact(
                "format",
                Unit::Text,
                json!({ "kind": "instruct", "prompt": prompt, "response": "{output}" }),
            )]
        };
        check(
            format("{q}\n"),
            format("{q}: "),
            expect![[r#"
                train a
                  format
                      instruct(prompt = "{q}\n", response = "{output}")
                    → instruct(prompt = "{q}: ", response = "{output}")
            "#]],
        );
    }

    #[test]
    fn stages_are_paired_by_name_then_by_kind() {
        let steps = |n: u64| vec![fact("steps", Unit::Count, n)];
        let check = |old: Vec<StageFacts>, new: Vec<StageFacts>, expected: Expect| {
            expected.assert_eq(&text(&compared(old, new)));
        };
        // Another name alone; what takes the stage up takes up the same.
        check(
            vec![stage("train", "a", None, steps(3)), stage("export", "x", Some("a"), vec![])],
            vec![stage("train", "b", None, steps(3)), stage("export", "x", Some("b"), vec![])],
            expect![[r#"
                train a → b
            "#]],
        );
        check(
            vec![stage("train", "a", None, steps(3)), stage("train", "b", Some("a"), steps(4))],
            vec![stage("train", "b", None, steps(5)), stage("evaluate", "e", Some("b"), vec![])],
            expect![[r#"
                train b
                  takes up a → -
                  steps    4 → 5  +25.0 %

                evaluate e: only in the second

                train a: only in the first
            "#]],
        );
        check(
            vec![stage("train", "a", None, steps(3)), stage("train", "b", None, steps(3))],
            vec![stage("train", "b", None, steps(3)), stage("train", "a", None, steps(3))],
            expect![[r#"
                in all
                  order of the stages a, b → b, a
            "#]],
        );
    }

    #[test]
    fn what_stages_share_is_told_once() {
        let facts = |n: u64, peak: u64| vec![fact("rows", Unit::Count, n), fact("peak", Unit::Bytes, peak)];
        let stages = |n, peak| {
            vec![stage("train", "a", None, facts(n, peak)), stage("evaluate", "e", Some("a"), facts(n, peak))]
        };
        expect![[r#"
            train a
              rows    4 → 6    +50.0 %
              peak 10 B → 5 B  −50.0 %

            evaluate e
              peak 10 B → 5 B  −50.0 %
              as in a: rows
        "#]]
        .assert_eq(&text(&compared(stages(4, 10), stages(6, 5))));
    }

    #[test]
    fn groups_that_change_alike_share_a_line() {
        let groups = |peaks: &[(&str, u64)]| {
            let group = |(name, peak): &(&str, u64)| GroupFacts {
                names: vec![(*name).to_string()],
                facts: vec![fact("peak", Unit::Bytes, *peak)],
            };
            let stage = stage("train", "a", None, vec![]);
            vec![StageFacts { groups: peaks.iter().map(group).collect(), ..stage }]
        };
        let old = groups(&[("embedding", 100), ("block.0", 100), ("block.1", 80), ("head", 70)]);
        let new = groups(&[("head", 70), ("embedding", 50), ("block.0", 50), ("block.1", 50), ("pooler", 9)]);
        expect![[r#"
            train a
              peak of embedding, block.0 100 B → 50 B  −50.0 %
              peak of block.1             80 B → 50 B  −37.5 %
        "#]]
        .assert_eq(&text(&compared(old, new)));
    }
}
