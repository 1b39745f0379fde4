//! Rows, metrics and lengths held against what the model is for and has room for.

use crate::lang::pipeline::{Data, Format, Metric, Setting, Tokenizer};
use crate::model::{Model, Target, Task};
use crate::problem::Problem;

use super::model::ModelPlan;

/// Holds the rows of a data block against the model's task.
///
/// # Errors
/// When rows have classes and the model has none, or the other way round; or when a classifier's rows are to be packed.
pub fn check_task(data: &Data, tokenizer: &Tokenizer, model: &Model) -> Result<(), Problem> {
    /// What a row has.
    #[derive(PartialEq)]
    enum Has {
        Text,
        Class,
        /// Of tokens, or of words.
        Labels,
        Answer,
    }
    let has = match &data.format.value {
        Format::Classify { .. } | Format::Tokens { label: Some(_), .. } => Has::Class,
        Format::TokenLabels { .. } => Has::Labels,
        Format::Tokens { labels: Some(_), .. } if matches!(model.task(), Task::Tokens(_)) => Has::Labels,
        Format::Question { .. } => Has::Answer,
        Format::Text { .. } | Format::Instruct { .. } | Format::Chat { .. } | Format::Tokens { .. } => {
            Has::Text
        }
        // Each block of a mix by itself.
        Format::OfParts => {
            return data.parts().into_iter().try_for_each(|part| check_task(part, tokenizer, model));
        }
    };
    let problem = |message: String, label: &str, help: &str| {
        Err(Problem::new("hift::plan::task", message).label_at(data.format.span(), label).help(help))
    };
    if let Format::Tokens { labels: Some(labels), label: Some(label), .. } = &data.format.value {
        return problem(
            format!("the rows of `{}` have both labels for each token and a class", data.name),
            &format!("`{labels}` is for models that predict tokens, `{label}` for classifiers"),
            "keep `labels` or `label`, whichever the model is trained for",
        );
    }
    let task = match has {
        Has::Text => None,
        Has::Class => Some("sequence_classification"),
        Has::Labels => Some("token_classification"),
        Has::Answer => Some("question_answering"),
    };
    match model.task() {
        Task::NextToken if has != Has::Text => problem(
            format!("the rows of `{}` have labels, but the model predicts the next token", data.name),
            match has {
                Has::Answer => "gives each row an answer to find",
                Has::Labels => "gives each word a label",
                Has::Class | Has::Text => "gives each row a label",
            },
            &format!(
                "write another `format`, or `task = {}` in the `model` block",
                task.unwrap_or("sequence_classification")
            ),
        ),
        Task::Tokens(classes) if has != Has::Labels => problem(
            format!(
                "the model gives each token one of {} classes, but the rows of `{}` have none for their words",
                classes.len(),
                data.name
            ),
            "has no classes of words",
            "write `format = token_labels(tokens = \"tokens\", labels = \"ner_tags\")` with the columns' names",
        ),
        Task::Span if has != Has::Answer => problem(
            format!("the model finds answers in a text, but the rows of `{}` ask nothing", data.name),
            "has no questions",
            "write `format = question(question = \"question\", context = \"context\", answers = \"answers\")`",
        ),
        Task::Sequence(_) if matches!(has, Has::Labels | Has::Answer) => problem(
            format!("the model gives each sequence a label, but the rows of `{}` have other ones", data.name),
            match has {
                Has::Labels => "gives each word a label",
                Has::Answer | Has::Class | Has::Text => "gives each row an answer to find",
            },
            &format!("write `task = {}` in the `model` block", task.unwrap_or("auto")),
        ),
        Task::Sequence(target) if has != Has::Class => problem(
            match target {
                Target::Classes(classes) => format!(
                    "the model tells {} classes apart, but the rows of `{}` have none",
                    classes.len(),
                    data.name
                ),
                Target::Number => {
                    format!("the model gives each row a number, but the rows of `{}` have none", data.name)
                }
            },
            "gives the rows no label",
            "write `format = classify(text = \"{text}\", label = \"label\")` with the columns' names",
        ),
        Task::Sequence(_) | Task::Tokens(_) | Task::Span if *tokenizer.pack => Err(Problem::new(
            "hift::plan::task",
            "rows that each have a label cannot be packed into one sequence",
        )
        .label_at(tokenizer.pack.span(), "asks for packing")
        .label_at(data.format.span(), "gives each row a label")
        .help("write `pack = false`")),
        Task::NextToken | Task::Sequence(_) | Task::Tokens(_) | Task::Span => Ok(()),
    }
}

/// The metrics that fit a task.
fn fitting(task: &Task) -> Vec<Metric> {
    use Metric::{
        Accuracy, EntityF1, EntityPrecision, EntityRecall, ExactMatch, F1, Loss, MacroF1, Matthews,
    };
    match task {
        Task::NextToken => vec![Loss, Metric::Perplexity, Accuracy],
        Task::Sequence(Target::Number) => vec![Loss, Metric::Pearson, Metric::Spearman],
        Task::Sequence(Target::Classes(classes)) => {
            let f1 = (classes.len() == 2).then_some(F1);
            [Loss, Metric::Perplexity, Accuracy, MacroF1, Matthews].into_iter().chain(f1).collect()
        }
        Task::Tokens(_) => {
            vec![Loss, Metric::Perplexity, Accuracy, MacroF1, EntityF1, EntityPrecision, EntityRecall]
        }
        Task::Span => vec![Loss, Accuracy, ExactMatch, F1],
    }
}

/// Holds the metrics of a stage against the model's task.
pub(super) fn check_metrics(metrics: &Setting<Vec<Metric>>, model: &ModelPlan) -> Result<(), Problem> {
    let task = model.model.task();
    let fitting = fitting(&task);
    let Some(strange) = metrics.iter().find(|metric| !fitting.contains(metric)) else { return Ok(()) };
    let names: Vec<&str> = fitting.iter().map(|metric| metric.name()).collect();
    let does = match &task {
        Task::NextToken => "predicts the next token".to_string(),
        Task::Sequence(Target::Number) => "gives each sequence a number".to_string(),
        Task::Sequence(Target::Classes(classes)) => {
            format!("tells {} classes of sequences apart", classes.len())
        }
        Task::Tokens(classes) => format!("tells {} classes of tokens apart", classes.len()),
        Task::Span => "finds answers in a text".to_string(),
    };
    let help = match (strange, &task) {
        (Metric::F1, Task::Sequence(Target::Classes(_))) => {
            "write `macro_f1`: `f1` is of two classes".to_string()
        }
        (
            Metric::Bleu
            | Metric::Nist
            | Metric::Rouge1
            | Metric::Rouge2
            | Metric::RougeL
            | Metric::ExactMatch,
            Task::NextToken,
        ) => {
            format!("a `generate` stage with `references` measures texts; here: {}", names.join(", "))
        }
        _ => format!("write some of {}", names.join(", ")),
    };
    Err(Problem::new(
        "hift::plan::metric",
        format!("`{}` does not measure a model that {does}", strange.name()),
    )
    .label_at(metrics.span(), "asks for it")
    .label_at(model.span, does)
    .help(help))
}

/// The longest sequence to plan for: what the rows really hold, else what the tokenizer may give.
pub(super) fn longest(tokenizer: &Tokenizer, model: &Model, rows: Option<u64>) -> Result<u64, Problem> {
    let positions = model.positions as u64;
    if let Some(max_length) = *tokenizer.max_length
        && max_length > positions
    {
        return Err(Problem::new(
            "hift::plan::too_long",
            format!("sequences of {max_length} tokens do not fit a model with {positions} positions"),
        )
        .label_at(tokenizer.max_length.span(), format!("at most {positions} here"))
        .help(format!("write `max_length = {positions} tokens` or less")));
    }
    let allowed = tokenizer.max_length.unwrap_or(positions);
    Ok(rows.map_or(allowed, |longest| longest.min(allowed)))
}

/// More tokens than this in one forward pass are surely not meant, and sizes stay within 64 bits.
const MAX_BATCH_TOKENS: u64 = 1 << 31;

/// Sequences per forward pass: what the pipeline says, but no more than there are.
pub(super) fn batch(micro_batch: &Setting<u64>, rows: Option<u64>, seq: u64) -> Result<u64, Problem> {
    let batch = rows.map_or(**micro_batch, |rows| rows.max(1).min(**micro_batch));
    if batch.saturating_mul(seq) <= MAX_BATCH_TOKENS {
        return Ok(batch);
    }
    let most = (MAX_BATCH_TOKENS / seq.max(1)).max(1);
    Err(Problem::new(
        "hift::plan::batch_too_large",
        format!("{batch} sequences of {seq} tokens are more than one forward pass can take"),
    )
    .label_at(micro_batch.span(), format!("at most {most} here"))
    .help("write a small `micro_batch`, such as 4, and `accumulate` for a larger batch"))
}
