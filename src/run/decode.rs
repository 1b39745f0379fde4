//! Texts, token by token: several prompts at once, over a cache of keys and values.
//!
//! A prompt goes through the model once, and its keys and values stay; then each further token is a pass of one token a
//! sequence. Both are programs like any other: the plan knows their bytes, and the cache's.
//!
//! Where a model turns the positions of long texts otherwise, a text that becomes long is read once more: what was kept of it
//! was turned as in a short one.
//!
//! The searches are those of Hugging Face's `generate`: greedy, by chance (temperature, top-k, top-p), by beams.

use std::collections::HashMap;

use crate::engine::access::floats;
use crate::engine::{Inputs, Store, Tensor, play, store};
use crate::plan::{Decoding, ModelPlan};
use crate::problem::Problem;
use crate::program::residency::bring;
use crate::program::{BatchShape, CacheShape, Program, forward_only};
use crate::random::Random;

use super::evaluate::STILL;
use super::signals;

/// What passes for never in sums of logarithms.
const NEVER: f64 = -1e9;

/// What is to be continued. Tokens have 64 bits wherever no program reads them, so that they do not pass for tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    pub ids: Vec<u64>,
}

/// When a text is over.
pub struct Ends<'a> {
    /// Tokens that end it.
    pub tokens: &'a [u64],
    /// Whether what was written so far holds a text that ends it.
    pub stops: &'a dyn Fn(&[u64]) -> bool,
}

/// The tokens that continue each prompt, without the one that ends it. None when interrupted: a text cut short would pass for
/// the whole.
///
/// # Errors
/// When an operation fails.
pub fn continue_all(
    plan: &ModelPlan,
    store: &mut Store,
    prompts: &[Prompt],
    how: &Decoding,
    ends: &Ends<'_>,
) -> Result<Option<Vec<Vec<u64>>>, Problem> {
    let model = &plan.model;
    let longest = prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0) as u64;
    let cache = how.cache(longest, model.positions as u64, prompts.len() as u64);
    let mut session = Session::open(plan, store, cache)?;
    let beams = how.beams as usize;
    let together = (cache.sequences / beams).max(1);
    let mut texts = Vec::with_capacity(prompts.len());
    for (at, chunk) in prompts.chunks(together).enumerate() {
        let mut searches = Vec::with_capacity(chunk.len());
        for (idx, prompt) in chunk.iter().enumerate() {
            if signals::interrupted() {
                return Ok(None);
            }
            let room = model.positions.saturating_sub(prompt.ids.len()) as u64;
            let mut search = Search {
                how,
                ends,
                most: how.max_new_tokens.min(room) as usize,
                first_row: (idx * beams * cache.capacity) as u64,
                capacity: cache.capacity as u64,
                prompt: &prompt.ids,
                is_far: model.is_far(prompt.ids.len()),
                running: Vec::new(),
                finished: Vec::new(),
                can_improve: true,
                // Each prompt draws from a stream of its own, whatever it is continued along with.
                random: Random::stream(how.seed, (at * together + idx) as u64),
                is_open: true,
            };
            search.running.push(Beam {
                new: Vec::new(),
                rows: search.own_rows(0, prompt.ids.len()),
                score: 0.0,
            });
            if search.most == 0 {
                search.is_open = false;
            } else {
                let logits = session.prompt(&prompt.ids, search.first_row, search.is_far)?;
                search.take(&floats(&logits), model.vocab);
            }
            searches.push(search);
        }
        while searches.iter().any(|search| search.is_open) {
            if signals::interrupted() {
                return Ok(None);
            }
            for search in &mut searches {
                if search.is_open && !search.is_far && model.is_far(search.length()) {
                    search.read_again(&mut session)?;
                }
            }
            for far in [false, true] {
                let is_meant = |search: &Search<'_>| search.is_open && search.is_far == far;
                let beams: Vec<&Beam> = searches
                    .iter()
                    .filter(|search| is_meant(search))
                    .flat_map(|search| &search.running)
                    .collect();
                if beams.is_empty() {
                    continue;
                }
                let logits = session.next(&beams, far)?;
                let logits = floats(&logits);
                let mut rest = &logits[..];
                for search in searches.iter_mut().filter(|search| is_meant(search)) {
                    let (own, others) = rest.split_at(search.running.len() * model.vocab);
                    search.take(own, model.vocab);
                    rest = others;
                }
            }
        }
        texts.extend(searches.into_iter().map(Search::best));
    }
    Ok(Some(texts))
}

/// A model with a cache of keys and values.
struct Session<'a> {
    model: &'a ModelPlan,
    store: &'a mut Store,
    cache: CacheShape,
    programs: HashMap<BatchShape, Program>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.store.caches.clear();
    }
}

impl<'a> Session<'a> {
    fn open(model: &'a ModelPlan, store: &'a mut Store, cache: CacheShape) -> Result<Self, Problem> {
        store.make_caches(&model.model.caches(cache)).map_err(|error| store::failed(&error))?;
        Ok(Self { model, store, cache, programs: HashMap::new() })
    }

    fn play(&mut self, shape: BatchShape, inputs: Inputs) -> Result<Tensor, Problem> {
        // Prompts of every length have a program each; they are small, but not nothing.
        if self.programs.len() > 256 {
            self.programs.clear();
        }
        let (model, cache, backend, away) = (self.model, self.cache, self.store.backend(), self.store.away());
        let program = self
            .programs
            .entry(shape)
            .or_insert_with(|| bring(forward_only(&model.continuation(shape, cache), backend), away));
        let played = play(program, self.store, inputs, Vec::new(), &STILL).map_err(|e| store::failed(&e))?;
        Ok(played.results.into_iter().next().expect("a pass gives its logits"))
    }

    /// Takes a prompt in, at the rows of the cache from `first_row` on: the logits of the token behind it, `[1, vocab]`.
    fn prompt(&mut self, ids: &[u64], first_row: u64, far: bool) -> Result<Tensor, Problem> {
        let n = ids.len();
        if let [id] = ids {
            let beam = Beam { new: vec![*id], rows: vec![first_row], score: 0.0 };
            return self.next(&[&beam], far);
        }
        let inputs = Inputs {
            ids: ids.iter().map(|id| *id as u32).collect(),
            positions: (0..n as u32).collect(),
            queries: vec![n as u32 - 1],
            places: (0..n as u32).map(|place| first_row as u32 + place).collect(),
            ..Inputs::default()
        };
        self.play(BatchShape { batch: 1, seq: n, packed: false, far }, inputs)
    }

    /// Takes the last token of each sequence in: the logits of the next ones, `[sequences, vocab]`.
    fn next(&mut self, beams: &[&Beam], far: bool) -> Result<Tensor, Problem> {
        let n = beams.len();
        let capacity = self.cache.capacity;
        // The last row is the new token's own.
        let length = |beam: &Beam| beam.rows.len() as u32;
        let each = |of: &dyn Fn(&Beam) -> u32| beams.iter().map(|beam| of(beam)).collect::<Vec<u32>>();
        let mut seen = vec![0; n * capacity];
        for (seen, beam) in seen.chunks_exact_mut(capacity).zip(beams) {
            seen.iter_mut().zip(&beam.rows).for_each(|(seen, row)| *seen = *row as u32);
        }
        let inputs = Inputs {
            ids: each(&|beam| beam.new.last().map_or(0, |id| *id as u32)),
            positions: each(&|beam| length(beam) - 1),
            queries: (0..n as u32).collect(),
            places: each(&|beam| beam.rows.last().map_or(0, |row| *row as u32)),
            lengths: each(&length),
            seen,
            ..Inputs::default()
        };
        self.play(BatchShape { batch: n, seq: 1, packed: false, far }, inputs)
    }
}

/// A text that is being written.
#[derive(Debug, Clone, PartialEq)]
struct Beam {
    /// The tokens behind the prompt.
    new: Vec<u64>,
    /// The rows of the cache that hold all of its tokens, that of the last one among them before it is taken in.
    rows: Vec<u64>,
    /// The sum of the logarithms of its probabilities.
    score: f64,
}

/// A text that is over, or may be.
#[derive(Debug, Clone, PartialEq)]
struct Done {
    new: Vec<u64>,
    score: f64,
    is_over: bool,
}

/// One prompt and what is tried to continue it with.
struct Search<'a> {
    how: &'a Decoding,
    ends: &'a Ends<'a>,
    /// The most new tokens.
    most: usize,
    first_row: u64,
    capacity: u64,
    prompt: &'a [u64],
    /// Its texts are long ones for the model.
    is_far: bool,
    running: Vec<Beam>,
    finished: Vec<Done>,
    can_improve: bool,
    random: Random,
    is_open: bool,
}

impl Search<'_> {
    /// The tokens of each text that is tried, the prompt's among them.
    fn length(&self) -> usize {
        self.running.first().map_or(0, |beam| self.prompt.len() + beam.new.len())
    }

    /// The first `n` rows of the cache that are the n-th beam's own.
    fn own_rows(&self, beam: usize, n: usize) -> Vec<u64> {
        let first = self.first_row + beam as u64 * self.capacity;
        (first..first + n as u64).collect()
    }

    /// Takes all texts in once more, each at rows of its own, but for their last tokens, which come next anyway.
    ///
    /// # Errors
    /// When an operation fails.
    fn read_again(&mut self, session: &mut Session<'_>) -> Result<(), Problem> {
        self.is_far = true;
        for idx in 0..self.running.len() {
            let text: Vec<u64> = self.prompt.iter().chain(&self.running[idx].new).copied().collect();
            let rows = self.own_rows(idx, text.len());
            session.prompt(&text[..text.len() - 1], rows[0], true)?;
            self.running[idx].rows = rows;
        }
        Ok(())
    }

    /// Goes on by the logits that each running text has for its next token.
    fn take(&mut self, logits: &[f32], vocab: usize) {
        match self.how.beams {
            1 => self.one(logits),
            _ => self.beams(logits, vocab),
        }
    }

    /// What was found in the end.
    fn best(mut self) -> Vec<u64> {
        if self.how.beams == 1 {
            return self.running.swap_remove(0).new;
        }
        let mut best = match self.finished.into_iter().next() {
            Some(done) if done.is_over => done.new,
            _ => self.running.swap_remove(0).new,
        };
        if best.last().is_some_and(|last| self.ends.tokens.contains(last)) {
            best.pop();
        }
        best
    }

    fn one(&mut self, logits: &[f32]) {
        let next = choose(logits, self.how, &mut self.random);
        let beam = &mut self.running[0];
        if self.ends.tokens.contains(&(next as u64)) {
            self.is_open = false;
            return;
        }
        beam.rows.push(self.first_row + beam.rows.len() as u64);
        beam.new.push(next as u64);
        self.is_open = beam.new.len() < self.most && !(self.ends.stops)(&beam.new);
    }

    /// Source: `GenerationMixin._beam_search` of transformers 5, for one prompt.
    fn beams(&mut self, logits: &[f32], vocab: usize) {
        let n = self.how.beams as usize;
        let tried = n * (1 + self.ends.tokens.len()).max(2);
        let candidates = self.candidates(logits, vocab, tried);
        let length = self.running[0].new.len() + 1;
        let is_over: Vec<bool> = candidates
            .iter()
            .map(|(_, _, token)| self.ends.tokens.contains(&(*token as u64)) || length >= self.most)
            .collect();
        let text = |(_, beam, token): &(f64, usize, usize)| -> Vec<u64> {
            self.running[*beam].new.iter().copied().chain([*token as u64]).collect()
        };

        // Those that are over give their places to the next best.
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        let of = |at: usize| candidates[at].0 + if is_over[at] { NEVER } else { 0.0 };
        order.sort_by(|a, b| of(*b).total_cmp(&of(*a)));
        let place = (self.prompt.len() + length) as u64 - 1;
        let running: Vec<Beam> = (0..n.min(order.len()))
            .map(|idx| {
                let candidate = &candidates[order[idx]];
                let mut rows = self.running[candidate.1].rows.clone();
                // A beam writes into rows of its own, and reads what its ancestors wrote.
                rows.push(self.first_row + idx as u64 * self.capacity + place);
                Beam { new: text(candidate), rows, score: of(order[idx]) }
            })
            .collect();

        // Of those that are over, the best by their length.
        let full = self.finished.len() == n && self.finished.iter().all(|done| done.is_over);
        let closed = full && self.how.early_stopping;
        let power = |length: usize| (length as f64).powf(self.how.length_penalty);
        let mut merged: Vec<Done> = match self.finished.is_empty() {
            true => vec![Done { new: Vec::new(), score: NEVER, is_over: false }; n],
            false => std::mem::take(&mut self.finished),
        };
        for (at, candidate) in candidates.iter().enumerate() {
            let counts = is_over[at] && at < n;
            let shut = [closed, !self.can_improve, !counts].iter().filter(|shut| **shut).count() as f64;
            let score = candidate.0 / power(length) + NEVER * shut;
            merged.push(Done { new: text(candidate), score, is_over: counts });
        }
        merged.sort_by(|a, b| b.score.total_cmp(&a.score));
        merged.truncate(n);

        let best_running = running.first().map_or(NEVER, |beam| beam.score) / power(length);
        let worst = merged.iter().map(|done| done.score).fold(f64::INFINITY, f64::min);
        self.can_improve &= merged.iter().any(|done| best_running > if done.is_over { worst } else { NEVER });
        let all_over = merged.iter().all(|done| done.is_over);
        self.is_open = self.can_improve
            && !(all_over && self.how.early_stopping)
            && !is_over.iter().all(|is_over| *is_over);
        self.running = running;
        self.finished = merged;
    }

    /// The best continuations by one token, best first: their scores, whose they are, and the token.
    fn candidates(&self, logits: &[f32], vocab: usize, n: usize) -> Vec<(f64, usize, usize)> {
        let mut best: Vec<(f64, usize, usize)> = Vec::with_capacity(n + 1);
        for (idx, (logits, beam)) in logits.chunks_exact(vocab).zip(&self.running).enumerate() {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
            let base = beam.score - f64::from(max) - total.ln();
            for (token, &logit) in logits.iter().enumerate() {
                let score = f64::from(logit) + base;
                if best.len() == n && score <= best[n - 1].0 {
                    continue;
                }
                let at = best.partition_point(|(other, ..)| *other >= score);
                best.insert(at, (score, idx, token));
                best.truncate(n);
            }
        }
        best
    }
}

/// The most probable token, or one drawn with the probabilities of `softmax(logits / temperature)` among the `top_k` most
/// probable ones, and of these among the fewest that have `top_p` of the probability.
fn choose(logits: &[f32], how: &Decoding, random: &mut Random) -> usize {
    // Of equal ones the first, as everywhere.
    let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0);
    if how.temperature <= 0.0 {
        return best;
    }
    let weight = |logit: f32| (f64::from(logit - logits[best]) / how.temperature).exp();
    let least = least_kept(logits, how, weight);
    let kept = || logits.iter().enumerate().filter(|(_, logit)| **logit >= least);
    let mut left = random.uniform() * kept().map(|(_, logit)| weight(*logit)).sum::<f64>();
    for (id, logit) in kept() {
        left -= weight(*logit);
        if left < 0.0 {
            return id;
        }
    }
    best
}

/// The smallest logit that may be drawn.
fn least_kept(logits: &[f32], how: &Decoding, weight: impl Fn(f32) -> f64) -> f32 {
    if how.top_k.is_none() && how.top_p >= 1.0 {
        return f32::NEG_INFINITY;
    }
    let mut order: Vec<u64> = (0..logits.len() as u64).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    if let Some(k) = how.top_k {
        order.truncate((k as usize).max(1));
    }
    let sorted: Vec<f64> = order.iter().map(|id| weight(logits[*id as usize])).collect();
    let total: f64 = sorted.iter().sum();
    let mut above = 0.0;
    let mut kept = sorted.len();
    for (at, weight) in sorted.iter().enumerate() {
        // Kept as long as those above it have not yet the share.
        if above / total >= how.top_p {
            kept = at.max(1);
            break;
        }
        above += weight;
    }
    logits[order[kept - 1] as usize]
}
