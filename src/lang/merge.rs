//! Blocks that take over others, and what profiles change: afterwards every block says all that it means.

use std::collections::{HashMap, HashSet};

use crate::problem::{Edit, Problem, Problems, Span};

use super::names::{nearest, quoted, sure};
use super::schema::PROFILE;
use super::syntax::{Block, Entry, File, Name, Piece, Term, Value};
use super::too_many;

/// Values that may be taken over in all. A file of any size that a person writes has far fewer.
const MAX_TAKEN: usize = 100_000;

/// The blocks of a file once profiles and bases are applied.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub blocks: Vec<Block>,
    /// Values for params, from the chosen profiles; the last one of a name counts.
    pub given: Vec<Entry>,
}

/// The profiles of a file, by name.
pub(super) fn profiles(file: &File) -> impl Iterator<Item = &Block> {
    file.blocks().filter(|block| block.kind.text == PROFILE)
}

/// Applies the chosen profiles, in that order, and then lets blocks take over their bases.
pub(super) fn merge(file: &File, chosen: &[String], problems: &mut Problems) -> Merged {
    let mut merged = Merged::default();
    let profiles: Vec<&Block> = profiles(file).collect();
    merged.blocks = file.blocks().filter(|block| block.kind.text != PROFILE).cloned().collect();
    let mut by_name: HashMap<&str, &Block> = HashMap::new();
    for profile in &profiles {
        if too_many(problems, profile.kind.span) {
            break;
        }
        let Some(name) = &profile.name else {
            problems.push(
                Problem::new("hift::lang::name", "this profile has no name")
                    .label(profile.kind.span, "a name must follow")
                    .help("write `profile NAME { ... }` with a name of your choice"),
            );
            continue;
        };
        let first = *by_name.entry(&name.text).or_insert(profile);
        if first.span != profile.span {
            problems.push(
                Problem::new(
                    "hift::lang::duplicate_block",
                    format!("there are two profiles called `{}`", name.text),
                )
                .label(profile.head(), "the second one")
                .label(first.head(), "the first one")
                .help("rename one of them, or remove it"),
            );
        }
        if let Some(base) = &profile.base {
            problems.push(no_base(base, "a profile changes blocks and takes over none"));
        }
    }
    for wanted in chosen {
        match by_name.get(wanted.as_str()) {
            Some(profile) => merged.apply(profile, problems),
            None => problems.push(unknown_profile(wanted, &profiles)),
        }
    }
    for block in &merged.blocks {
        for part in &block.blocks {
            if let Some(base) = &part.base
                && !too_many(problems, base.span)
            {
                problems.push(no_base(base, "a block inside a block takes over none"));
            }
        }
    }
    merged.take_over(problems);
    merged
}

fn no_base(base: &Name, why: &str) -> Problem {
    Problem::new("hift::lang::base", why)
        .label(base.span, "names a block to take over")
        .help(format!("remove `= {}`", base.text))
}

fn unknown_profile(wanted: &str, profiles: &[&Block]) -> Problem {
    let names = || profiles.iter().filter_map(|profile| profile.name.as_ref()).map(|name| name.text.as_str());
    let problem = Problem::of(
        crate::problem::Fault::Usage,
        "hift::lang::profile",
        format!("the file has no profile `{wanted}`"),
    );
    problem.help(match (nearest(wanted, names()), names().count()) {
        (Some(meant), _) => format!("did you mean `--profile {meant}`?"),
        (None, 0) => format!("add `profile {wanted} {{ ... }}` to the file"),
        (None, _) => format!("its profiles are {}", quoted(names(), "and")),
    })
}

impl Merged {
    fn apply(&mut self, profile: &Block, problems: &mut Problems) {
        self.given.extend(profile.entries.iter().cloned());
        let by_name = self.by_name();
        for change in &profile.blocks {
            if too_many(problems, change.kind.span) {
                return;
            }
            let Some(name) = &change.name else {
                problems.push(
                    Problem::new(
                        "hift::lang::profile",
                        format!("which {} block is changed?", change.kind.text),
                    )
                    .label(change.kind.span, "a name must follow")
                    .help(format!("write `{} NAME {{ ... }}` as the block is called", change.kind.text)),
                );
                continue;
            };
            if let Some(base) = &change.base {
                problems.push(no_base(base, "a profile changes keys of a block, not what it takes over"));
            }
            match by_name.get(&(change.kind.text.clone(), name.text.clone())) {
                Some(i) => {
                    let block = &mut self.blocks[*i];
                    block.damaged |= change.damaged;
                    overlay(block, change);
                }
                None => {
                    let names: Vec<String> = self
                        .blocks
                        .iter()
                        .filter(|block| block.kind.text == change.kind.text)
                        .filter_map(|block| block.name.as_ref().map(|name| name.text.clone()))
                        .collect();
                    let names = || names.iter().map(String::as_str);
                    problems.push(
                        Problem::new(
                            "hift::lang::unknown_name",
                            format!(
                                "there is no {} block called `{}` to change",
                                change.kind.text, name.text
                            ),
                        )
                        .label(change.head(), "not defined")
                        .fix_with(
                            sure(&name.text, names())
                                .map(|meant| Edit { span: name.span, text: meant.to_owned() }),
                        )
                        .help(
                            match (nearest(&name.text, names()), names().count()) {
                                (Some(meant), _) => format!("did you mean `{meant}`?"),
                                (None, 0) => {
                                    format!(
                                        "define it outside of the profile: `{} {} {{ ... }}`",
                                        change.kind.text, name.text
                                    )
                                }
                                (None, _) => format!("there are {}", quoted(names(), "and")),
                            },
                        ),
                    );
                }
            }
        }
    }

    /// The first block of each kind and name.
    fn by_name(&self) -> HashMap<(String, String), usize> {
        let mut by_name = HashMap::new();
        for (i, block) in self.blocks.iter().enumerate() {
            if let Some(name) = &block.name {
                by_name.entry((block.kind.text.clone(), name.text.clone())).or_insert(i);
            }
        }
        by_name
    }

    /// Lets every block that names a base have what the base says and it does not.
    fn take_over(&mut self, problems: &mut Problems) {
        let by_name = self.by_name();
        let base_of = |blocks: &[Block], i: usize| -> Option<usize> {
            let base = blocks[i].base.as_ref()?;
            by_name.get(&(blocks[i].kind.text.clone(), base.text.clone())).copied()
        };
        let mut done: Vec<bool> = self.blocks.iter().map(|block| block.base.is_none()).collect();
        let mut taken = 0;
        for start in 0..self.blocks.len() {
            if too_many(problems, self.blocks[start].kind.span) {
                return;
            }
            // From a block to its base and so on, down to one that is finished.
            let mut path = vec![start];
            let mut on_path: HashMap<usize, usize> = HashMap::from([(start, 0)]);
            while let Some(&last) = path.last()
                && !done[last]
            {
                let Some(base) = base_of(&self.blocks, last) else {
                    problems.push(self.unknown_base(last));
                    self.blocks[last].damaged = true;
                    done[last] = true;
                    break;
                };
                if let Some(&at) = on_path.get(&base) {
                    problems.push(self.circle(&path[at..]));
                    for i in &path[at..] {
                        self.blocks[*i].damaged = true;
                        done[*i] = true;
                    }
                    break;
                }
                on_path.insert(base, path.len());
                path.push(base);
            }
            while let Some(i) = path.pop() {
                if done[i] {
                    continue;
                }
                done[i] = true;
                let Some(base) = base_of(&self.blocks, i) else { continue };
                taken += weight(&self.blocks[base]);
                if taken > MAX_TAKEN {
                    problems.push(
                        Problem::new("hift::lang::too_much", "blocks take over too much from each other")
                            .label(self.blocks[i].head(), "here it becomes too much")
                            .help("take over fewer blocks from each other"),
                    );
                    return;
                }
                let base = self.blocks[base].clone();
                let own = std::mem::replace(&mut self.blocks[i], base);
                let block = &mut self.blocks[i];
                let base_name = block.name.take();
                block.damaged |= own.damaged;
                overlay(block, &own);
                let base_is_algorithm = own.kind.text == "optimizer"
                    && !block.entries.iter().any(|entry| entry.name.text == "algorithm")
                    && !own.name.as_ref().is_some_and(|name| super::resolve::is_algorithm(&name.text));
                // An optimizer's name may be its algorithm, and the name is not taken over.
                if let (true, Some(name), Some(place)) = (base_is_algorithm, base_name, &own.base)
                    && super::resolve::is_algorithm(&name.text)
                {
                    block.entries.push(Entry {
                        name: Name { text: "algorithm".into(), span: place.span },
                        value: Value { term: Term::Word(name.text), span: place.span },
                    });
                }
                (block.doc, block.kind, block.name, block.base) = (own.doc, own.kind, own.name, own.base);
                block.span = own.span;
            }
        }
    }

    fn unknown_base(&self, i: usize) -> Problem {
        let block = &self.blocks[i];
        let (kind, base) = (&block.kind.text, block.base.as_ref().expect("a block that names a base"));
        let names = || {
            let others =
                self.blocks.iter().enumerate().filter(|(j, other)| *j != i && other.kind.text == *kind);
            others.filter_map(|(_, other)| other.name.as_ref()).map(|name| name.text.as_str())
        };
        let other = self.blocks.iter().find(|other| other.is_called(&base.text));
        let problem = match other {
            Some(other) => Problem::new(
                "hift::lang::base",
                format!(
                    "`{}` is a {} block; a {kind} block takes over one of its own kind",
                    base.text, other.kind.text
                ),
            )
            .label(base.span, format!("not a {kind} block"))
            .label(other.head(), "defined here"),
            None => {
                Problem::new("hift::lang::base", format!("there is no {kind} block called `{}`", base.text))
                    .label(base.span, "not defined")
            }
        };
        let meant = sure(&base.text, names());
        let problem = problem.fix_with(meant.map(|meant| Edit { span: base.span, text: meant.to_owned() }));
        problem.help(match (nearest(&base.text, names()), names().count()) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, 0) => format!("remove `= {}`, or define `{kind} {} {{ ... }}`", base.text, base.text),
            (None, _) => format!("there are {}", quoted(names(), "and")),
        })
    }

    fn circle(&self, path: &[usize]) -> Problem {
        // More of them help nobody.
        let shown = &path[..path.len().min(8)];
        let mut names: Vec<String> = shown.iter().map(|i| format!("`{}`", self.blocks[*i].title())).collect();
        names.extend((shown.len() < path.len()).then(|| format!("{} more", path.len() - shown.len())));
        let mut problem = Problem::new(
            "hift::lang::circle",
            match names.as_slice() {
                [one] => format!("{one} takes over itself"),
                _ => format!("these blocks take over each other in a circle: {}", names.join(", ")),
            },
        );
        for i in shown {
            let base: Option<Span> = self.blocks[*i].base.as_ref().map(|base| base.span);
            problem = problem.label_at(base, "needs this first");
        }
        problem.help("remove one of the bases")
    }
}

/// How much a copy of a block takes: its values, and its parts.
fn weight(block: &Block) -> usize {
    let entries: usize = block.entries.iter().map(|entry| value_weight(&entry.value)).sum();
    1 + entries + block.blocks.iter().map(weight).sum::<usize>()
}

/// The values in a value; long texts count for more.
pub(super) fn value_weight(value: &Value) -> usize {
    let of_text = |text: &str| text.len() / 100;
    let within: usize = match &value.term {
        Term::Text(text) | Term::Word(text) => of_text(text),
        Term::Number(number) | Term::Amount(number, _) => of_text(&number.text),
        Term::Boolean(_) => 0,
        Term::Mixed(pieces) => {
            let weights = pieces.iter().map(|piece| match piece {
                Piece::Text(text) => of_text(text),
                Piece::Hole(value) => value_weight(value),
            });
            weights.sum()
        }
        Term::Call(_, arguments) => arguments.iter().map(|argument| value_weight(&argument.value)).sum(),
        Term::List(values) => values.iter().map(value_weight).sum(),
        Term::Record(entries) => entries.iter().map(|entry| value_weight(&entry.value)).sum(),
        Term::Sum(terms) => terms.iter().map(|(_, value)| value_weight(value)).sum(),
        Term::Product(factors) => factors.iter().map(|(_, value)| value_weight(value)).sum(),
        Term::Negative(value) => value_weight(value),
    };
    1 + within
}

/// Puts the entries and parts of `change` over those of `block`.
fn overlay(block: &mut Block, change: &Block) {
    let changed: HashSet<&str> = change.entries.iter().map(|entry| entry.name.text.as_str()).collect();
    block.entries.retain(|entry| !changed.contains(entry.name.text.as_str()));
    block.entries.extend(change.entries.iter().cloned());
    // A part that `change` has twice stays twice, and is told.
    let mut untouched: Vec<bool> = vec![true; block.blocks.len()];
    for part in &change.blocks {
        let own = block
            .blocks
            .iter()
            .zip(&untouched)
            .position(|(own, free)| *free && own.kind.text == part.kind.text);
        match own {
            Some(i) => {
                untouched[i] = false;
                let own = &mut block.blocks[i];
                overlay(own, part);
                own.damaged |= part.damaged;
                own.span = part.span;
                (own.kind, own.name) = (part.kind.clone(), part.name.clone());
            }
            None => {
                block.blocks.push(part.clone());
                untouched.push(false);
            }
        }
    }
}
