//! What a `hook` block may say.

use super::{Form, Key, required};

const ENDINGS: &[Form] = &[
    Form::Word("success", "The run has finished."),
    Form::Word("failure", "The run has failed."),
    Form::Word("interruption", "A signal came or the time was up, and a checkpoint was written."),
];

pub(super) const HOOK: &[Key] = &[
    required(
        "on",
        &[
            Form::Word("success", "The run has finished."),
            Form::Word("failure", "The run has failed."),
            Form::Word("interruption", "A signal came or the time was up, and a checkpoint was written."),
            Form::List(ENDINGS, None),
        ],
        "[success, failure]",
        "After which endings it runs. A call that finds nothing to do runs none.",
    ),
    required(
        "run",
        &[Form::Text],
        "\"mail -s hift me@example.org\"",
        "The command, for `sh -c`, in the folder of the pipeline file. Its standard input is a line of JSON: \
         `outcome`, `exit_code`, `pipeline`, `directory`, `message`, `exports`, `checkpoint`, `results`.",
    )
    .also(&["command", "cmd"]),
];
