//! Messages to tokens: what is written, and which of it is learned.

use std::fs;
use std::path::Path;

use crate::cases::Case;
use expect_test::{Expect, expect};
use hift::data::{IGNORE, Limits, Sequence};
use hift::lang::pipeline::{Format, LossOn, Source, Tools};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

/// `a` is the user, `d` the assistant, `e` the system; each message is a line.
const PLAIN: &str = "{% for m in messages %}{{ {'user': 'a ', 'assistant': 'd ', 'system': 'e '}[m.role] + m.content + '\\n' }}\
                     {% endfor %}{% if add_generation_prompt %}{{ 'd ' }}{% endif %}";

fn chat() -> Format {
    Format::Chat { column: None, tools: Tools::Auto, template: None, roles: Vec::new() }
}

/// Rows of these lines, with a template.
fn case(rows: &str, template: &str) -> Case {
    let config = json!({ "eos_token": "</s>", "bos_token": "<s>", "chat_template": template }).to_string();
    let case = Case::new(rows, chat()).write("tokenizer_config.json", config);
    case.with(|case| case.limits = Limits::language(16, 100))
}

fn check(case: Case, expected: &[&str]) {
    assert_eq!(case.shown().lines().collect::<Vec<_>>(), expected);
}

fn refused(case: Case, expected: Expect) {
    expected.assert_eq(&case.problems());
}

const TURNS: &str = r#"{"messages": [{"role": "system", "content": "e"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "ab"}]}"#;

#[test]
fn the_turns_that_are_asked_for_carry_the_loss() {
    let loss_on = |loss_on| case(TURNS, PLAIN).with(|case| case.tokenizer.loss_on.value = loss_on);
    let turns = "e| |e|\\n|a| |c|\\n|d| |[b]|[\\n]|a| |c|\\n|d| |[ab]|[\\n]";
    check(loss_on(LossOn::Response), &[turns]);
    check(loss_on(LossOn::Last), &[&turns.replace("[b]|[\\n]", "b|\\n")]);
    let of_user = "e| |e|\\n|[a]|[ ]|[c]|[\\n]|d| |b|\\n|[a]|[ ]|[c]|[\\n]|d| |ab|\\n";
    check(loss_on(LossOn::Roles(vec!["user".into()])), &[of_user]);
    let both = LossOn::Roles(vec!["user".into(), "assistant".into()]);
    check(loss_on(both), &["e| |e|\\n|[a]|[ ]|[c]|[\\n]|d| |[b]|[\\n]|[a]|[ ]|[c]|[\\n]|d| |[ab]|[\\n]"]);
    // No begin mark and no end mark: the template says what stands there.
    check(
        loss_on(LossOn::All),
        &["e|[ ]|[e]|[\\n]|[a]|[ ]|[c]|[\\n]|[d]|[ ]|[b]|[\\n]|[a]|[ ]|[c]|[\\n]|[d]|[ ]|[ab]|[\\n]"],
    );
}

#[test]
fn other_names_are_mapped() {
    let rows = r#"{"conversations": [{"from": "human", "value": "c"}, {"from": "gpt", "value": "b"}]}
{"conversations": [{"role": "user", "content": [{"type": "text", "text": "c"}]}, {"role": "assistant", "content": [{"type": "text", "value": "b"}]}]}"#;
    check(case(rows, PLAIN), &["a| |c|\\n|d| |[b]|[\\n]"; 2]);
    let rows = r#"{"talk": [{"from": "customer", "value": "c"}, {"from": "agent", "value": "b"}]}"#;
    let named = |roles: &[(&str, &str)]| {
        let roles = roles.iter().map(|(own, role)| ((*own).to_owned(), (*role).to_owned())).collect();
        case(rows, PLAIN).with(|case| {
            case.data.format.value =
                Format::Chat { column: Some("talk".into()), tools: Tools::Auto, template: None, roles };
        })
    };
    check(named(&[("customer", "user"), ("agent", "assistant")]), &["a| |c|\\n|d| |[b]|[\\n]"]);
    refused(
        named(&[("agent", "assistant")]),
        expect![[r#"
            65 hift::data::messages: `rows.jsonl`, line 1: there is no role `customer`
              at format: this format
              help: say what it means: `chat(roles = { customer = "user" })`
        "#]],
    );
}

#[test]
fn messages_come_from_columns_of_arrow_and_parquet_too() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/files");
    for source in [
        Source::Parquet { path: "chats.parquet".into() },
        Source::Arrow { path: "chats".into(), split: Some("train".into()) },
    ] {
        let case = case("", PLAIN).write("chats.parquet", fs::read(files.join("chats.parquet")).unwrap());
        let split = case.folder.path().join("chats/train");
        fs::create_dir_all(&split).unwrap();
        fs::copy(files.join("splits/dataset_dict.json"), split.with_file_name("dataset_dict.json")).unwrap();
        for entry in fs::read_dir(files.join("splits/train")).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, split.join(path.file_name().unwrap())).unwrap();
        }
        check(
            case.with(|case| case.data.source.value = source),
            &[
                "a| |ab|\\n|d| |[c]|[\\n]",
                "e| |e|\\n|a| |a|\\n|d| |[b]|[ ]|[d]|[\\n]|a| |c|\\n|d| |[d]|[d]|[\\n]",
            ],
        );
    }
}

#[test]
fn a_text_that_always_ends_in_the_same_words_can_be_taken_apart() {
    let tail = format!("{PLAIN}{{% if not add_generation_prompt %}}{{{{ eos_token }}}}{{% endif %}}");
    check(case(TURNS, &tail), &["e| |e|\\n|a| |c|\\n|d| |[b]|[\\n]|a| |c|\\n|d| |[ab]|[\\n]|[</s>]"]);
}

#[test]
fn a_template_that_cannot_be_taken_apart_is_refused() {
    // Only the last message is written out in full: earlier turns of the assistant look different later.
    let forgets = "{% for m in messages %}{{ m.content if loop.last else 'e' }}{% endfor %}";
    refused(
        case(TURNS, forgets),
        expect![[r#"
        65 hift::data::no_mask: `rows.jsonl`, line 1: the chat template in `tokenizer_config.json` writes the first 2 messages differently when others follow, so what carries a loss cannot be found
          at format: this format
          help: write `loss_on = all`, `loss_on = last` if only the last turn counts, or `chat(template = ...)` with a template that writes each message for itself
    "#]],
    );
    // The last turn of a chat can still be found, if what comes before does not change by it.
    let shortens = "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}{{ 'e' }}{% else %}{{ m.content }}{% endif %}{% endfor %}";
    let last = case(TURNS, shortens).with(|case| case.tokenizer.loss_on.value = LossOn::Last);
    check(last, &["e|c|e|c|[ab]"]);
}

#[test]
fn chats_that_cannot_be_used() {
    refused(
        case("{\"text\": \"c\"}\n{\"messages\": \"c\"}\n{\"messages\": [{\"content\": \"c\"}]}", PLAIN),
        expect![[r#"
            65 hift::data::messages: `rows.jsonl`, line 1: there are no messages (and 2 more rows)
              at format: this format
              help: name the column: `chat(column = "...")`
        "#]],
    );
    refused(
        case(r#"{"messages": [{"role": "user", "content": [{"type": "image"}]}]}"#, PLAIN),
        expect![[r#"
            65 hift::data::messages: `rows.jsonl`, line 1: a message holds something other than text
              at format: this format
              help: only text can be learned: leave such rows out with `filter`, or change them
        "#]],
    );
    refused(
        case(TURNS, "{{ raise_exception('no system') }}"),
        expect![[r#"
        65 hift::data::chat_template: `rows.jsonl`, line 1: the chat template in `tokenizer_config.json` refuses it: no system (line 1 of the template)
          at format: this format
          help: change the rows, or write `chat(template = "chat.jinja")` with a file of your own
    "#]],
    );
    refused(
        case(TURNS, "{% if %}"),
        expect![[r#"
        65 hift::data::chat_template: the chat template in `tokenizer_config.json` cannot be read: unexpected end of block (line 1 of the template)
          at format: needs it
          help: write `chat(template = "chat.jinja")` with a file of your own
    "#]],
    );
    refused(
        Case::new(TURNS, chat()),
        expect![[r#"
        65 hift::data::no_template: the tokenizer has no chat template
          at format: needs one
          at file: this tokenizer
          help: write `chat(template = "chat.jinja")` with a file of your own, or use the tokenizer of a model that was made for chats
    "#]],
    );
    refused(
        case(r#"{"messages": [{"role": "user", "content": "c"}]}"#, PLAIN),
        expect![[r#"
        65 hift::data::nothing_trained: no token of `rows.jsonl` carries a loss (1 of 1 rows: no turn of those that `loss_on` asks for)
          at format: leaves nothing to train on
          help: look at `loss_on`, and at the roles of the messages
    "#]],
    );
}

fn talks() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/files/talks.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A tokenizer whose ids are the bytes of the text.
fn bytes_tokenizer() -> String {
    // Byte-level tokenizers write a byte as a letter: its own if that is visible, else one behind the first 256.
    let mut other = 255;
    let letters = (0..=255_u32).map(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from_u32(byte).unwrap(),
        _ => {
            other += 1;
            char::from_u32(other).unwrap()
        }
    });
    let vocab: serde_json::Map<_, _> = letters.zip(0..).map(|(c, id)| (c.to_string(), json!(id))).collect();
    let level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": [] },
    })
    .to_string()
}

#[test]
fn templates_give_what_transformers_gives() {
    let talks = talks();
    for (name, template) in talks["templates"].as_object().unwrap() {
        for (i, talk) in talks["talks"].as_array().unwrap().iter().enumerate() {
            let config = json!({
                "chat_template": template, "bos_token": talks["tokens"]["bos_token"],
                "eos_token": { "content": talks["tokens"]["eos_token"] },
            });
            let spans = talks["spans"][name].as_array();
            let case = Case::new(&talk.to_string(), chat())
                .write("tokenizer.json", bytes_tokenizer())
                .write("tokenizer_config.json", config.to_string())
                .with(|case| case.limits = Limits::language(256, 1 << 12))
                .with(|case| {
                    // Where the parts of the assistant are is compared where transformers can say it.
                    case.tokenizer.loss_on.value =
                        if spans.is_some() { LossOn::Response } else { LossOn::All };
                });
            match (&talks["texts"][name][i], case.load()) {
                (Value::String(expected), Ok(dataset)) => {
                    let row = dataset.train.get(0);
                    let bytes: Vec<u8> = row.ids.iter().map(|id| *id as u8).collect();
                    assert_eq!(String::from_utf8(bytes).unwrap(), *expected, "{name} {i}");
                    let Some(spans) = spans else { continue };
                    let mut learned = vec![false; row.ids.len()];
                    for span in spans[i].as_array().unwrap() {
                        let at = |n: usize| span[n].as_u64().unwrap() as usize;
                        learned[at(0)..at(1)].fill(true);
                    }
                    let own: Vec<bool> = row.labels.iter().map(|label| *label != IGNORE).collect();
                    assert_eq!(own[..own.len() - 1], learned[1..], "{name} {i}");
                }
                (Value::Object(_), Err(problems)) => {
                    assert_eq!(problems.0[0].code, "hift::data::chat_template")
                }
                (expected, loaded) => panic!("{name} {i}: {loaded:?}, not {expected}"),
            }
        }
    }
}

#[test]
fn real_templates_give_the_ids_that_transformers_gives() {
    // Phi's `<|assistant|>` swallows the line's end that an answer begins with, and is not part of the answer.
    let learned_of = |name: &str| match name {
        "phi-3-mini" => [
            &["Grüße, 世界!\n\nBye.<|end|><|endoftext|>"][..],
            &["2<|end|>", "4<|end|><|endoftext|>"],
            &["<|end|>", "20 degrees<|end|><|endoftext|>"],
        ],
        "qwen2.5" => [
            &["Grüße, 世界!\n\nBye.<|im_end|>\n"][..],
            &["2<|im_end|>\n", "\n\n4<|im_end|>\n"],
            &[
                "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\", \"n\": 1.5}}\n</tool_call><|im_end|>\n",
                "20 degrees<|im_end|>\n",
            ],
        ],
        other => panic!("what is learned with {other} is not written here"),
    };
    let talks = talks();
    for (name, expected) in talks["ids"].as_object().unwrap() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/tokenizers").join(name);
        if !folder.exists() {
            println!("skipped: {} is not there", folder.display());
            continue;
        }
        let rows: String =
            talks["talks"].as_array().unwrap().iter().map(|talk| format!("{talk}\n")).collect();
        let case = Case::new(&rows, chat()).with(|case| {
            case.limits = Limits::language(1 << 20, 1 << 12);
            case.tokenizer.file.value = Some(folder.join("tokenizer.json").display().to_string());
        });
        let dataset = case.load().unwrap();
        for (i, expected) in expected.as_array().unwrap().iter().enumerate() {
            let row = dataset.train.get(i);
            assert_eq!(json!(row.ids), *expected, "{name} {i}");
            assert_eq!(learned(&row, &folder.join("tokenizer.json")), learned_of(name)[i], "{name} {i}");
        }
    }
}

/// What carries the loss, a text for each stretch.
fn learned(row: &Sequence, tokenizer: &Path) -> Vec<String> {
    let tokenizer = Tokenizer::from_file(tokenizer).unwrap();
    let stretches = row.labels.split(|label| *label == IGNORE).filter(|labels| !labels.is_empty());
    stretches.map(|labels| tokenizer.decode(labels, false).unwrap()).collect()
}
