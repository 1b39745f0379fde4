//! How text becomes tokens, and which of them are learned.

use serde::Serialize;

use crate::problem::Span;

use super::{Repository, Setting};

/// `tokenizer NAME { ... }`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tokenizer {
    pub name: String,
    #[serde(skip)]
    pub span: Span,
    /// A `tokenizer.json`. Not needed where every data block that it serves is in `tokens` format.
    pub file: Setting<Option<String>>,
    /// The repository whose `tokenizer.json` it is, where `file` names one; `file` is its path once it is fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<Repository>,
    /// In tokens; without it, what the model's positions allow.
    pub max_length: Setting<Option<u64>>,
    pub too_long: Setting<TooLong>,
    /// Several rows in one sequence, without cross-talk.
    pub pack: Setting<bool>,
    pub loss_on: Setting<LossOn>,
    /// What is put in front of a row.
    pub begin: Setting<Mark>,
    /// What is put behind a row.
    pub end: Setting<Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// The end goes.
    Cut,
    /// The beginning goes, the begin mark stays.
    CutLeft,
    /// The row becomes several. Each begins with the last token of the one before, so that every token is predicted
    /// once.
    Split,
    Drop,
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// Every token.
    All,
    /// The response of an `instruct` row, its end mark included; every turn of the assistant in a chat. In a mix,
    /// rows without a response are learned whole.
    Response,
    /// The last turn of the assistant in a chat.
    Last,
    /// The turns of these roles in a chat.
    Roles(Vec<String>),
}

/// The roles that a message of a chat may have.
pub const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// A special token at an end of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// begin: what the tokenizer's own post-processor puts there. end: the `eos_token` that
    /// `tokenizer_config.json` beside the tokenizer names, if there is one.
    Auto,
    None,
    Token(String),
}
