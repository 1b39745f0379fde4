//! Which parameters train together, and in which turn.
//!
//! The layers form a queue in the schedule's order; the first m train, then the next m. With `rotate`, those that
//! have trained go to the queue's tail, so that groups can wrap round, as in the reference implementation;
//! without, the groups are fixed and the last one may be short. A split makes units; the order makes turns of them;
//! what is always active joins every turn. Which turn comes when is [`super::turn`]'s.
//!
//! Source: Liu et al. 2024, "HiFT", algorithm 1.

use serde::Serialize;

use crate::lang::pipeline::{Groups, Order, Schedule, Setting, Split, Tail};
use crate::model::{Layer, Model};
use crate::problem::{Problem, Problems};
use crate::program::ParamId;
use crate::random::Random;
use crate::units::Bytes;

use super::turn::{Visits, n_sets, sets};

/// What trains in one turn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// The names of its layers, or the name that the pipeline gives it.
    pub names: Vec<String>,
    #[serde(skip)]
    pub params: Vec<ParamId>,
    /// Trained weights.
    pub n_elements: u64,
}

/// Every set of parameters that a turn can train, in the order of their turns where they follow one another, and how
/// many turns make a cycle.
///
/// With `rotate` and an m that does not divide n, the turns repeat only after several cycles.
#[derive(Debug, Clone, PartialEq)]
pub struct Turns {
    pub groups: Vec<Group>,
    pub per_cycle: u64,
    /// Turns of a cycle without the one that wraps round or is short.
    pub short_cycle: u64,
    /// What the schedule's own factors make of the rate, by [`ParamId`].
    pub factors: Vec<f64>,
    pub visits: Visits,
}

/// More sets than this are not planned one by one.
const MOST_SETS: usize = 1000;

/// Layers, or parts of them, that no turn separates.
#[derive(Debug, Clone, Default, PartialEq)]
struct Unit {
    names: Vec<String>,
    params: Vec<ParamId>,
}

impl Unit {
    fn join<'a>(units: impl IntoIterator<Item = &'a Unit>) -> Unit {
        let mut joined = Unit::default();
        for unit in units {
            joined.names.extend_from_slice(&unit.names);
            joined.params.extend_from_slice(&unit.params);
        }
        joined
    }
}

/// Units in the order of their turns.
struct Queue {
    turns: Vec<Unit>,
    per_cycle: u64,
    short_cycle: u64,
    /// Groups that have names of their own.
    named: Vec<Unit>,
}

pub fn turns(groups: &Groups, schedule: &Schedule, model: &Model) -> Result<Turns, Problems> {
    let mut problems = Problems::default();
    let tail_split = match *groups.split {
        Split::ByLayer { tail, .. } | Split::BySize { tail, .. } => tail == Tail::Split,
        Split::All | Split::Named { .. } => false,
    };
    let all = model.tail(tail_split);
    let mut layers = all.clone();
    let mut take = |patterns| take(&mut layers, &all, patterns, model, &mut problems);
    take(&groups.freeze);
    let always = Unit {
        params: take(&groups.always),
        names: groups.always.iter().map(|pattern| pattern.value.clone()).collect(),
    };
    if problems.has_errors() {
        return Err(problems);
    }
    if layers.is_empty() {
        let problem = Problem::new("hift::plan::nothing_to_train", "every layer is frozen")
            .label_at(groups.freeze.span(), "this leaves nothing to train")
            .help("take at least one pattern out of `freeze`");
        return Err(match always.params.is_empty() {
            true => problem,
            false => Problem::new("hift::plan::nothing_to_train", "no layer is left to take turns")
                .label_at(groups.always.span(), "all of them train in every turn")
                .help("write `split = all()` without `always`, or take a pattern out of `always`"),
        }
        .into());
    }
    let Queue { turns, per_cycle, short_cycle, named } = match &*groups.split {
        Split::All => {
            let units: Vec<Unit> = layers.into_iter().map(unit).collect();
            Queue { turns: vec![Unit::join(&units)], per_cycle: 1, short_cycle: 1, named: Vec::new() }
        }
        Split::ByLayer { size, .. } => by_layer(groups, *size, schedule, layers)?,
        Split::BySize { bytes, .. } => by_size(*bytes, schedule, layers, model)?,
        Split::Named { groups: named } => by_name(groups, named, schedule, &layers, model)?,
    };
    let factors = factors(schedule, &named, &all, model)?;
    let whole = per_cycle;
    let (turns, per_cycle, visits) = visits(groups, schedule, turns, per_cycle)?;
    let short_cycle = if per_cycle == whole { short_cycle } else { per_cycle };
    let groups = turns.into_iter().map(|unit| group(Unit::join([&always, &unit]), model)).collect();
    Ok(Turns { groups, per_cycle, short_cycle, factors, visits })
}

/// A group's name stands for what it trains, a layer's for the layer.
fn factors(
    schedule: &Schedule,
    groups: &[Unit],
    layers: &[Layer],
    model: &Model,
) -> Result<Vec<f64>, Problems> {
    let mut problems = Problems::default();
    let mut factors = vec![1.0; model.params.len()];
    let named: Vec<(&str, &[ParamId])> = groups
        .iter()
        .map(|group| (group.names[0].as_str(), group.params.as_slice()))
        .chain(layers.iter().map(|layer| (layer.name.as_str(), layer.params.as_slice())))
        .collect();
    for (name, factor) in &schedule.factors.value {
        match named.iter().find(|(known, _)| *known == name.value) {
            Some((_, params)) => params.iter().for_each(|id| factors[id.0] *= factor),
            None => {
                let nearest = nearest(name, named.iter().map(|(name, _)| *name));
                problems.push(
                    Problem::new(
                        "hift::plan::unknown_layer",
                        format!("there is no group or layer `{}`", **name),
                    )
                    .label_at(name.span(), "not known")
                    .help(format!("{nearest}write the name of a group, or `embedding` or `head`")),
                );
            }
        }
    }
    if problems.has_errors() { Err(problems) } else { Ok(factors) }
}

fn group(unit: Unit, model: &Model) -> Group {
    let n_elements = unit.params.iter().map(|id| model.param(*id).elements()).sum();
    Group { names: unit.names, params: unit.params, n_elements }
}

/// What of the turns trains together, how many turns make a cycle, and how they follow one another.
fn visits(
    groups: &Groups,
    schedule: &Schedule,
    turns: Vec<Unit>,
    per_cycle: u64,
) -> Result<(Vec<Unit>, u64, Visits), Problem> {
    let visits = match *schedule.order {
        Order::BottomUp | Order::TopDown | Order::List { .. } | Order::Random { redraw: false, .. } => {
            Visits::Fixed
        }
        Order::Random { seed, redraw: true } => Visits::Redrawn { seed },
        Order::Importance => Visits::Importance,
        Order::Sample { seed, size } => {
            let n = turns.len();
            let size = usize::try_from(size).ok().filter(|size| *size <= n).ok_or_else(|| {
                Problem::new(
                    "hift::plan::sample_too_large",
                    format!("{size} groups a turn cannot be drawn from {n}"),
                )
                .label_at(schedule.order.span(), format!("the split makes {n} groups"))
                .help(format!("write a `size` from 1 to {n}"))
            })?;
            if n_sets(n, size).is_none_or(|sets| sets > MOST_SETS) {
                return Err(Problem::new(
                    "hift::plan::too_many_sets",
                    format!("{size} groups a turn out of {n} make more than {MOST_SETS} different sets"),
                )
                .label_at(schedule.order.span(), "the memory of each would have to be foretold")
                .help("write a smaller `size`, or larger groups, such as `by_layer(2)`"));
            }
            Visits::Drawn { seed, units: n, size }
        }
    };
    if let Visits::Drawn { units, size, .. } = visits {
        let turns = sets(units, size).iter().map(|set| Unit::join(set.iter().map(|i| &turns[*i]))).collect();
        return Ok((turns, units.div_ceil(size) as u64, visits));
    }
    if visits == Visits::Fixed && *groups.grow {
        let turns: Vec<Unit> = (1..=turns.len()).map(|n| Unit::join(&turns[..n])).collect();
        return Ok((turns, per_cycle, Visits::Growing));
    }
    for (asked, word) in [(&groups.grow, "grow"), (&groups.rotate, "rotate")] {
        if visits != Visits::Fixed && **asked {
            return Err(Problem::new(
                "hift::plan::no_fixed_order",
                format!("groups that {word} need an order that stays"),
            )
            .label_at(asked.span(), format!("asks the groups to {word}"))
            .label_at(schedule.order.span(), "changes from cycle to cycle")
            .help(format!("remove `{word}`, or write an order such as `bottom_up`")));
        }
    }
    Ok((turns, per_cycle, visits))
}

fn by_layer(groups: &Groups, size: u64, schedule: &Schedule, layers: Vec<Layer>) -> Result<Queue, Problems> {
    let n = layers.len();
    let m = usize::try_from(size).unwrap_or(usize::MAX);
    if m == 0 || m > n {
        return Err(Problem::new(
            "hift::plan::group_too_large",
            format!("groups of {size} layers do not fit {n} layers"),
        )
        .label_at(groups.split.span(), format!("this model has {n} layers to train"))
        .help(format!("write a number from 1 to {n}; `by_layer(1)` trains one layer at a time"))
        .into());
    }
    let units: Vec<Unit> = layers.into_iter().map(unit).collect();
    let queue = order(&schedule.order, &units, "layer")?;
    if m > 1 && queue.iter().any(|turn| turn.len() > 1) {
        return Err(Problem::new(
            "hift::plan::turns_of_groups",
            "an order that says what trains together leaves nothing for the split to join",
        )
        .label_at(schedule.order.span(), "several layers in a turn")
        .label_at(groups.split.span(), "joins layers, too")
        .help("write `split = by_layer(1)`")
        .into());
    }
    let queue: Vec<Unit> = queue.iter().map(|turn| Unit::join(turn.iter().map(|i| &units[*i]))).collect();
    let n = queue.len();
    let turns: Vec<Unit> = if *groups.rotate {
        // After n / gcd(n, m) turns the queue is as it was.
        let n_turns = n / gcd(n, m);
        (0..n_turns).map(|turn| Unit::join((0..m).map(|i| &queue[(turn * m + i) % n]))).collect()
    } else {
        queue.chunks(m).map(Unit::join).collect()
    };
    Ok(Queue {
        turns,
        per_cycle: n.div_ceil(m) as u64,
        short_cycle: (n / m).max(1) as u64,
        named: Vec::new(),
    })
}

fn unit(layer: Layer) -> Unit {
    Unit { names: vec![layer.name], params: layer.params }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Consecutive layers, from bottom to top or as a list says; the groups then have their turns in the schedule's order.
fn by_size(most: Bytes, schedule: &Schedule, layers: Vec<Layer>, model: &Model) -> Result<Queue, Problems> {
    let mut units: Vec<Unit> = layers.into_iter().map(unit).collect();
    let listed = matches!(*schedule.order, Order::List { .. });
    if listed {
        let queue = order(&schedule.order, &units, "layer")?;
        units = queue.iter().map(|turn| Unit::join(turn.iter().map(|i| &units[*i]))).collect();
    }
    let sizes: Vec<u64> =
        units.iter().map(|unit| unit.params.iter().map(|id| model.param(*id).bytes().0).sum()).collect();
    let mut parts = Vec::new();
    let mut rest = units.as_slice();
    for n in even_parts(&sizes, most.0) {
        let (part, behind) = rest.split_at(n);
        parts.push(Unit::join(part));
        rest = behind;
    }
    if !listed {
        let queue = order(&schedule.order, &parts, "group")?;
        parts = queue.iter().map(|turn| parts[turn[0]].clone()).collect();
    }
    let per_cycle = parts.len() as u64;
    Ok(Queue { turns: parts, per_cycle, short_cycle: per_cycle, named: Vec::new() })
}

/// Cuts a row of sizes into as few parts as keep each at `most` or at a single item, and among these so that the
/// largest part is as small as it can be. Gives the lengths.
fn even_parts(sizes: &[u64], most: u64) -> Vec<usize> {
    let cut = |most: u64| {
        let mut parts = vec![0];
        let mut held = 0;
        for size in sizes {
            let full = held + size > most && parts.last().is_some_and(|n| *n > 0);
            if full {
                parts.push(0);
                held = 0;
            }
            *parts.last_mut().expect("begun with one") += 1;
            held += size;
        }
        parts
    };
    let fewest = cut(most).len();
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low) / 2;
        if cut(middle).len() <= fewest {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    cut(high)
}

fn by_name(
    groups: &Groups,
    named: &[(Setting<String>, Vec<Setting<String>>)],
    schedule: &Schedule,
    layers: &[Layer],
    model: &Model,
) -> Result<Queue, Problems> {
    let mut problems = Problems::default();
    let mut free: Vec<ParamId> = layers.iter().flat_map(|layer| layer.params.clone()).collect();
    let mut made = Vec::new();
    for (name, patterns) in named {
        let mut params = Vec::new();
        for pattern in patterns {
            let before = params.len();
            free.retain(|id| {
                let hit = matches(pattern, layers, *id, model);
                if hit {
                    params.push(*id);
                }
                !hit
            });
            if params.len() == before {
                problems.push(no_match(pattern, layers, model, "matches nothing that is still free"));
            }
        }
        made.push(Unit { names: vec![name.value.clone()], params });
    }
    if let Some(id) = free.first()
        && !problems.has_errors()
    {
        let path = &model.param(*id).path;
        problems.push(
            Problem::new(
                "hift::plan::ungrouped",
                format!("{} of the model's tensors are in no group, `{path}` among them", free.len()),
            )
            .label_at(groups.split.span(), "no pattern here matches them")
            .help("add a group for them, or name them in `freeze`"),
        );
    }
    if problems.has_errors() {
        return Err(problems);
    }
    let queue = order(&schedule.order, &made, "group")?;
    let turns: Vec<Unit> = queue.iter().map(|turn| Unit::join(turn.iter().map(|i| &made[*i]))).collect();
    let per_cycle = turns.len() as u64;
    Ok(Queue { turns, per_cycle, short_cycle: per_cycle, named: made })
}

/// The turns as places of units, in the schedule's order; more than one place a turn only where a list says so.
fn order(order: &Setting<Order>, units: &[Unit], what: &str) -> Result<Vec<Vec<usize>>, Problems> {
    let mut queue: Vec<usize> = (0..units.len()).collect();
    match &**order {
        Order::BottomUp | Order::Importance | Order::Sample { .. } | Order::Random { redraw: true, .. } => {}
        Order::TopDown => queue.reverse(),
        Order::Random { seed, redraw: false } => Random::named(*seed, "order").shuffle(&mut queue),
        Order::List { turns } => return listed(order, turns, units, what),
    }
    Ok(queue.into_iter().map(|i| vec![i]).collect())
}

fn listed(
    order: &Setting<Order>,
    turns: &[Setting<Vec<Setting<String>>>],
    units: &[Unit],
    what: &str,
) -> Result<Vec<Vec<usize>>, Problems> {
    let names: Vec<&str> = units.iter().map(|unit| unit.names[0].as_str()).collect();
    let mut problems = Problems::default();
    let mut queue: Vec<Vec<usize>> = Vec::new();
    // Where turns are of several groups, one that should train more often may stand in several turns.
    let several = turns.iter().any(|turn| turn.len() > 1);
    for turn in turns {
        if turn.is_empty() {
            problems.push(
                Problem::new("hift::plan::empty_turn", "a turn trains nothing")
                    .label_at(turn.span(), "empty")
                    .help(format!("remove it, or name the {what}s that train in it")),
            );
        }
        let mut taken: Vec<usize> = Vec::new();
        for name in &turn.value {
            match names.iter().position(|known| *known == name.value) {
                None => {
                    let nearest = nearest(name, names.iter().copied());
                    problems.push(
                        Problem::new("hift::plan::unknown_layer", format!("there is no {what} `{}`", **name))
                            .label_at(name.span(), format!("not a {what} that trains"))
                            .help(format!("{nearest}the {what}s are: {}", listing(&names))),
                    );
                }
                Some(at) if taken.contains(&at) || !several && queue.contains(&vec![at]) => problems.push(
                    Problem::new(
                        "hift::plan::twice_in_order",
                        format!("`{}` stands twice in the order", **name),
                    )
                    .label_at(name.span(), "the second time")
                    .help("name each once; a cycle visits every one once"),
                ),
                Some(at) => taken.push(at),
            }
        }
        queue.push(taken);
    }
    let missing: Vec<&str> =
        (0..names.len()).filter(|i| !queue.iter().any(|turn| turn.contains(i))).map(|i| names[i]).collect();
    if !problems.has_errors() && !missing.is_empty() {
        problems.push(
            Problem::new(
                "hift::plan::missing_in_order",
                format!("the order leaves out {}", listing(&missing)),
            )
            .label_at(order.span(), "every one needs its turn")
            .help("add them, or name them in `freeze` if they are not to be trained"),
        );
    }
    if problems.has_errors() { Err(problems) } else { Ok(queue) }
}

/// Takes what the patterns match out of the layers, and gives it; a layer of which nothing is left goes too.
fn take(
    layers: &mut Vec<Layer>,
    all: &[Layer],
    patterns: &[Setting<String>],
    model: &Model,
    problems: &mut Problems,
) -> Vec<ParamId> {
    let mut taken = Vec::new();
    for pattern in patterns {
        if !all.iter().flat_map(|layer| &layer.params).any(|id| matches(pattern, all, *id, model)) {
            problems.push(no_match(pattern, all, model, "matches nothing"));
        }
    }
    for layer in layers.iter_mut() {
        layer.params.retain(|id| {
            let hit = patterns.iter().any(|pattern| matches(pattern, all, *id, model));
            if hit {
                taken.push(*id);
            }
            !hit
        });
    }
    layers.retain(|layer| !layer.params.is_empty());
    taken
}

/// A pattern matches a parameter by the name of its layer, by its path or a beginning of it (`block.3.attention`), or
/// by its name in the checkpoint.
fn matches(pattern: &str, layers: &[Layer], id: ParamId, model: &Model) -> bool {
    let param = model.param(id);
    let layer = layers.iter().find(|layer| layer.params.contains(&id));
    if layer.is_some_and(|layer| glob(pattern, &layer.name)) || glob(pattern, &param.name) {
        return true;
    }
    let ends = param.path.match_indices('.').map(|(end, _)| end).chain([param.path.len()]);
    ends.into_iter().any(|end| glob(pattern, &param.path[..end]))
}

/// `*` matches any text without a dot, `**` any text.
fn glob(pattern: &str, text: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("**") {
        return (0..=text.len()).any(|end| text.is_char_boundary(end) && glob(rest, &text[end..]));
    }
    if let Some(rest) = pattern.strip_prefix('*') {
        let reach = text.find('.').unwrap_or(text.len());
        return (0..=reach).any(|end| text.is_char_boundary(end) && glob(rest, &text[end..]));
    }
    let mut pattern_chars = pattern.chars();
    let mut text_chars = text.chars();
    match (pattern_chars.next(), text_chars.next()) {
        (None, None) => true,
        (Some(a), Some(b)) if a == b => glob(pattern_chars.as_str(), text_chars.as_str()),
        _ => false,
    }
}

fn no_match(pattern: &Setting<String>, layers: &[Layer], model: &Model, label: &str) -> Problem {
    let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    let paths = model.params.iter().map(|param| param.path.as_str());
    let nearest = nearest(pattern, names.iter().copied().chain(paths));
    Problem::new("hift::plan::unknown_layer", format!("no layer or parameter is called `{}`", **pattern))
        .label_at(pattern.span(), label)
        .help(format!(
            "{nearest}the layers are: {}; inside a block there are paths such as `block.*.attention`",
            listing(&names)
        ))
}

/// `did you mean ...? ` or nothing.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .map_or(String::new(), |(_, known)| format!("did you mean `{known}`? "))
}

/// A few names, with the middle left out where there are many: `embedding, block.0, block.1 ... head`.
pub(crate) fn listing(names: &[&str]) -> String {
    match names {
        [first @ .., last] if names.len() > 8 => format!(
            "{} ... {last}",
            first[..4].iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
        )
        .replace(&format!("... {last}"), &format!("... `{last}`")),
        _ => names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn a_star_stays_between_dots() {
        let check =
            |pattern, text, expected| assert_eq!(glob(pattern, text), expected, "{pattern} on {text}");
        check("block.*", "block.3", true);
        check("block.*", "block.3.attention", false);
        check("block.*.attention", "block.12.attention", true);
        check("block.**", "block.3.attention.q", true);
        check("block.1", "block.12", false);
        check("*", "head", true);
        check("h*d", "head", true);
        check("", "head", false);
    }
}
