//! Which parameters train together, and in which turn.
//!
//! The layers form a queue in the schedule's order; the first m train, then the next m. With `rotate`, those that
//! have trained go to the queue's tail, so that groups can wrap round, as in the reference implementation;
//! without, the groups are fixed and the last one may be short.
//!
//! Source: Liu et al. 2024, "HiFT", algorithm 1.

use serde::Serialize;

use crate::lang::pipeline::{Groups, Order, Schedule, Setting, Split, Tail};
use crate::model::{Layer, Model};
use crate::problem::{Problem, Problems};
use crate::program::ParamId;
use crate::random::Random;

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

/// The groups in the order of their turns, and how many turns make a cycle.
///
/// With `rotate` and an m that does not divide n, the turns repeat only after several cycles.
#[derive(Debug, Clone, PartialEq)]
pub struct Turns {
    pub groups: Vec<Group>,
    pub per_cycle: u64,
}

pub fn turns(groups: &Groups, schedule: &Schedule, model: &Model) -> Result<Turns, Problems> {
    let mut problems = Problems::default();
    let tail_split = matches!(*groups.split, Split::ByLayer { tail: Tail::Split, .. });
    let mut layers = model.tail(tail_split);
    freeze(&mut layers, &groups.freeze, model, &mut problems);
    if problems.has_errors() {
        return Err(problems);
    }
    if layers.is_empty() {
        return Err(Problem::new("hift::plan::nothing_to_train", "every layer is frozen")
            .label_at(groups.freeze.span(), "this leaves nothing to train")
            .help("take at least one pattern out of `freeze`")
            .into());
    }
    match &*groups.split {
        Split::All => {
            let names = layers.iter().map(|layer| layer.name.clone()).collect();
            let params = layers.into_iter().flat_map(|layer| layer.params).collect();
            Ok(Turns { groups: vec![group(names, params, model)], per_cycle: 1 })
        }
        Split::ByLayer { size, .. } => by_layer(groups, *size, schedule, layers, model),
        Split::Named { groups: named } => by_name(groups, named, schedule, &layers, model),
    }
}

fn group(names: Vec<String>, params: Vec<ParamId>, model: &Model) -> Group {
    let n_elements = params.iter().map(|id| model.param(*id).elements()).sum();
    Group { names, params, n_elements }
}

fn by_layer(
    groups: &Groups,
    size: u64,
    schedule: &Schedule,
    layers: Vec<Layer>,
    model: &Model,
) -> Result<Turns, Problems> {
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
    let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    let queue = order(&schedule.order, &names, "layer")?;
    let take = |at: Vec<usize>| {
        let names = at.iter().map(|i| layers[*i].name.clone()).collect();
        let params = at.iter().flat_map(|i| layers[*i].params.clone()).collect();
        group(names, params, model)
    };
    let per_cycle = n.div_ceil(m);
    let turns: Vec<Group> = if *groups.rotate {
        // After n / gcd(n, m) turns the queue is as it was.
        let n_turns = n / gcd(n, m);
        (0..n_turns).map(|turn| take((0..m).map(|i| queue[(turn * m + i) % n]).collect())).collect()
    } else {
        queue.chunks(m).map(|chunk| take(chunk.to_vec())).collect()
    };
    Ok(Turns { groups: turns, per_cycle: per_cycle as u64 })
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn by_name(
    groups: &Groups,
    named: &[(Setting<String>, Vec<Setting<String>>)],
    schedule: &Schedule,
    layers: &[Layer],
    model: &Model,
) -> Result<Turns, Problems> {
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
        made.push(group(vec![name.value.clone()], params, model));
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
    let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    let queue = order(&schedule.order, &names, "group")?;
    let per_cycle = queue.len() as u64;
    Ok(Turns { groups: queue.into_iter().map(|i| made[i].clone()).collect(), per_cycle })
}

/// The places of `names` in the order of their turns.
fn order(order: &Setting<Order>, names: &[&str], what: &str) -> Result<Vec<usize>, Problems> {
    let mut queue: Vec<usize> = (0..names.len()).collect();
    match &**order {
        Order::BottomUp => {}
        Order::TopDown => queue.reverse(),
        Order::Random { seed } => Random::named(*seed, "order").shuffle(&mut queue),
        Order::List { names: list } => {
            let mut problems = Problems::default();
            let mut taken: Vec<usize> = Vec::new();
            for name in list {
                match names.iter().position(|known| *known == name.value) {
                    None => {
                        let nearest = nearest(name, names.iter().copied());
                        problems.push(
                            Problem::new(
                                "hift::plan::unknown_layer",
                                format!("there is no {what} `{}`", **name),
                            )
                            .label_at(name.span(), format!("not a {what} that trains"))
                            .help(format!("{nearest}the {what}s are: {}", listing(names))),
                        );
                    }
                    Some(at) if taken.contains(&at) => problems.push(
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
            if !problems.has_errors() && taken.len() < names.len() {
                let missing: Vec<&str> =
                    (0..names.len()).filter(|i| !taken.contains(i)).map(|i| names[i]).collect();
                problems.push(
                    Problem::new(
                        "hift::plan::missing_in_order",
                        format!("the order leaves out {}", listing(&missing)),
                    )
                    .label_at(order.span(), "every one needs its turn")
                    .help("add them, or name them in `freeze` if they are not to be trained"),
                );
            }
            if problems.has_errors() {
                return Err(problems);
            }
            queue = taken;
        }
    }
    Ok(queue)
}

/// Takes frozen parameters out; a layer of which nothing is left goes too.
fn freeze(layers: &mut Vec<Layer>, patterns: &[Setting<String>], model: &Model, problems: &mut Problems) {
    let all = layers.clone();
    for pattern in patterns {
        if !all.iter().flat_map(|layer| &layer.params).any(|id| matches(pattern, &all, *id, model)) {
            problems.push(no_match(pattern, &all, model, "matches nothing"));
        }
    }
    for layer in layers.iter_mut() {
        layer.params.retain(|id| !patterns.iter().any(|pattern| matches(pattern, &all, *id, model)));
    }
    layers.retain(|layer| !layer.params.is_empty());
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
