//! Weights as torch saves them, `pytorch_model.bin`, in all of its forms. `tests/python/old_weights.py` wrote
//! `tests/weights`: each file holds the tensors of `plain.safetensors`, tied, transposed, expanded or with a storage of
//! their own.
#![cfg(feature = "run")]

mod common;

use std::fs;
use std::path::Path;

use hift::model::Model;
use hift::problem::Problem;
use hift::weights::{Directory, names};

use common::case::{Case, PIPELINE};
use common::fixture;

fn bytes(name: &str) -> Vec<u8> {
    fs::read(fixture("weights").join(name)).unwrap()
}

/// A folder with these files, and the model's configuration.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let (folder, config) = (tempfile::tempdir().unwrap(), bytes("config.json"));
    for (name, bytes) in files.iter().chain([&("config.json", &config[..])]) {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn open(files: &[(&str, &[u8])]) -> Result<Directory, Problem> {
    Directory::require(folder(files).path())
}

/// Every tensor of the model, by name: how it is stored, its shape, its numbers.
fn tensors(directory: &Directory) -> Vec<(String, String, Vec<usize>, Vec<u8>)> {
    let model = Model::from_config(&String::from_utf8(bytes("config.json")).unwrap()).unwrap();
    assert!(directory.check(&model).0.is_empty(), "{:?}", directory.check(&model));
    let tensor = |param: &hift::model::Param| {
        let entry = directory.of(param).unwrap();
        let dtype = format!("{:?}", entry.dtype);
        (param.name.clone(), dtype, entry.shape.clone(), directory.bytes(entry).into_owned())
    };
    model.params.iter().map(tensor).collect()
}

const INDEX: &str =
    r#"{"weight_map": {"lm_head.weight": "shard-1.bin", "model.norm.weight": "shard-2.bin"}}"#;

#[test]
fn every_form_holds_the_same_tensors() {
    let plain = tensors(&open(&[("model.safetensors", &bytes("plain.safetensors"))]).unwrap());
    for name in ["zip.bin", "zip-protocol-4.bin", "pickles.bin"] {
        assert!(tensors(&open(&[("pytorch_model.bin", &bytes(name))]).unwrap()) == plain, "{name}");
    }
    let shards = [
        ("pytorch_model.bin.index.json", INDEX.as_bytes()),
        ("shard-1.bin", &bytes("shard-1.bin")),
        ("shard-2.bin", &bytes("shard-2.bin")),
    ];
    assert!(tensors(&open(&shards).unwrap()) == plain, "shards");
    let named = names(folder(&shards).path());
    assert_eq!(named, ["pytorch_model.bin.index.json", "shard-1.bin", "shard-2.bin"]);

    // Where there are both, the old one is not even opened.
    let both = [("model.safetensors", &bytes("plain.safetensors")[..]), ("pytorch_model.bin", b"no weights")];
    assert!(tensors(&open(&both).unwrap()) == plain, "safetensors go first");
    assert_eq!(names(folder(&both).path()), ["model.safetensors"]);
}

#[test]
fn nothing_in_a_pickle_is_run() {
    let directory = open(&[("pytorch_model.bin", &bytes("command.bin"))]).unwrap();
    let names: Vec<&str> = directory.tensors().map(|(name, _)| name).collect();
    assert_eq!(names, ["lm_head.weight"]);
    assert!(!Path::new("i_was_run").exists());
}

#[test]
fn what_is_cut_off_is_broken_and_what_is_damaged_does_no_harm() {
    for name in ["zip.bin", "pickles.bin"] {
        let whole = bytes(name);
        let folder = folder(&[]);
        let file = folder.path().join("pytorch_model.bin");
        let open = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            Directory::open(folder.path())
        };
        for len in (0..whole.len()).step_by(3) {
            let problem =
                open(&whole[..len]).err().unwrap_or_else(|| panic!("{name} of {len} bytes is whole"));
            assert_eq!(problem.code, "hift::weights::broken", "{name} of {len} bytes: {}", problem.message);
        }
        for at in 0..whole.len() {
            for other in [0xff, whole[at] ^ 1] {
                let mut damaged = whole.clone();
                damaged[at] = other;
                if let Ok(Some(directory)) = open(&damaged) {
                    // Whatever is said of them, numbers lie within the file.
                    let small = directory
                        .tensors()
                        .filter(|(_, entry)| entry.shape.iter().product::<usize>() < 1 << 16);
                    small.for_each(|(_, entry)| drop(directory.bytes(entry)));
                }
            }
        }
    }
}

/// A pickle that says this between `PROTO 2` and `STOP`, as a file of the old form.
fn pickle(body: &[u8]) -> Vec<u8> {
    [b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02", body, b"."].concat()
}

#[test]
fn pickles_that_mean_harm() {
    let check = |body: &[u8], text: &str| {
        let Err(problem) = open(&[("pytorch_model.bin", &pickle(body))]) else {
            panic!("not refused: {text}")
        };
        assert!(problem.message.contains(text), "{text} is not in {}", problem.message);
        assert_eq!(problem.code, "hift::weights::broken");
    };
    // A text of 4 GiB, a list in itself, a million marks, tuples within tuples, each twice the one before.
    check(b"X\xff\xff\xff\xff", "its pickle ends early");
    check(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "its pickle ends early");
    check(b"]q\x00h\x00a", "its pickle ends early");
    check(&[b'('; 1_000_000], "takes what is not there");
    check(&[&b")"[..], &[0x85; 1_000_000]].concat(), "its pickle ends early");
    check(&[&b")"[..], &b"2\x86".repeat(1000)].concat(), "its pickle ends early");
    check(b"j\x00\x00\x00\x01", "recalls what it has not kept");
    check(b"cos\nsystem\nX\x01\x00\x00\x00a\x85R", "its pickle ends early");
    check(b"\x97", "the operation 0x97 at byte 2");
    check(b"N.\x80\x02]", "it holds no dictionary of tensors");
    check(b"}.\x80\x02]", "it holds no tensor");
    check(b"}.\x80\x02N", "it does not list its storages");
    check(b"}.\x80\x02]X\x01\x00\x00\x000a", "it is cut off");
}

#[test]
fn a_run_starts_from_an_old_checkpoint_and_a_lock_knows_it() {
    let text = PIPELINE.replace("random(\"config.json\", seed = 1)", "\"model\"");
    // The vocabulary has 5 tokens.
    let row = "{\"input_ids\": [1, 2, 3, 4], \"labels\": [1, 2, 3, 4]}\n";
    let case = Case::new().write("p.hift", text).write("rows.jsonl", row.repeat(8));
    case.put("model/config.json", bytes("config.json"));
    let run = |file: &str, form: &str| {
        case.put(&format!("model/{file}"), bytes(form));
        case.run("run p.hift --new").works();
        case.weights("out/final")
    };
    let old = run("pytorch_model.bin", "pickles.bin");
    assert!(run("pytorch_model.bin", "zip.bin") == old);
    case.run("lock p.hift").works();
    let lock = fs::read_to_string(case.path("p.lock")).unwrap();
    assert!(lock.contains("model/pytorch_model.bin"), "{lock}");
    let inspect = case.run("inspect model");
    assert!(inspect.works().out.contains("bf16"), "{}", inspect.out);

    case.put("model/pytorch_model.bin", &bytes("zip.bin")[..2000]);
    case.run("run p.hift --locked").fails(65, &["pytorch_model.bin"]);
    let whole = ["pytorch_model.bin is not read", "2000 bytes", "download it again"];
    case.run("run p.hift --new").fails(65, &whole);
    case.run("plan p.hift").fails(65, &["pytorch_model.bin is not read"]);
    case.put("model/pytorch_model.bin", "version https://git-lfs.github.com/spec/v1\n");
    case.run("plan p.hift").fails(65, &["begins like neither a zip archive nor a pickle"]);

    fs::remove_file(case.path("model/pytorch_model.bin")).unwrap();
    assert!(run("model.safetensors", "plain.safetensors") == old, "the weights are the same");
}
