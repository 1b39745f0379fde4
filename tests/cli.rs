//! The binary from outside: exit codes, what it says, and what is on disk afterwards.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

use common::case::{Case, HIFT, Said, config, hang_ups_arrive, names, row, with_checkpoint};

// ------------------------------------------------------------------------------------- the pipeline is wrong

#[test]
fn a_pipeline_that_is_wrong() {
    let check = |from: &str, to: &str, texts: &[&str]| {
        let case = Case::new().with(from, to);
        for command in ["check p.hift", "plan p.hift", "run p.hift --progress plain"] {
            case.run(command).fails(65, texts);
        }
        // Where nobody watches, the first mistake on one line.
        assert_eq!(case.run("run p.hift").fails(65, &["hift: p.hift:", "help: "]).err.lines().count(), 1);
        assert!(!case.path("runs").exists());
    };
    check("schedule turns {", "schedule turns", &["schedule", "p.hift:10:"]);
    check("holdout = 2 rows", "holdout = 2 GiB", &["holdout", "help: "]);
    check("micro_batch = 2", "micro_bath = 2", &["`micro_bath`", "`micro_batch`"]);
    check("data = rows", "data = row", &["`row`", "`rows`"]);
    check("optimizer adamw {}", "optimizer adamw {}\noptimizer adamw {}", &["`adamw`", "p.hift:12:1"]);
    check(
        "export final {",
        "train again { data = rows model = more groups = layers schedule = turns optimizer = adamw steps = 1 }\n\
         train more { data = rows model = again groups = layers schedule = turns optimizer = adamw steps = 1 }\n\
         export final {",
        &["`again`", "`more`"],
    );
    check("by_layer(1)", "by_layer(9)", &["groups of 9 layers do not fit 4 layers", "from 1 to 4"]);
    check("by_layer(1)", "by_layer(1) freeze = [\"blok.0\"]", &["`blok.0`", "did you mean `block.0`?"]);
    check(
        "rate = constant(1e-2)",
        "rate = constant(1e-2) order = [\"head\", \"block.7\"]",
        &["there is no layer `block.7`", "`embedding`, `block.0`, `block.1`, `head`"],
    );
    check(
        "by_layer(1)",
        "named({ low = [\"embedding\", \"block.*\"] })",
        &["tensors are in no group", "add a group for them, or name them in `freeze`"],
    );
}

#[test]
fn all_mistakes_of_a_file_come_at_once() {
    Case::new()
        .with("micro_batch = 2", "micro_bath = 2")
        .with("holdout = 2 rows", "holdout = 2 GiB")
        .run("check p.hift")
        .fails(65, &["micro_bath", "GiB", "1 of 1 pipeline has mistakes"]);
}

#[test]
fn a_command_line_that_is_wrong() {
    let case = Case::new();
    case.run("").fails(2, &["Usage"]);
    case.run("train p.hift").fails(2, &["unrecognized subcommand"]);
    case.run("run").fails(2, &["<FILE>"]);
    case.run("run p.hift --fast").fails(2, &["--fast"]);
    case.run("run p.hift --set steps").fails(2, &["NAME=VALUE"]);
    case.run("run p.hift --set step=3").fails(2, &["no param `step`", "did you mean `--set steps=3`?"]);
    case.run("plan p.hift --program block.9").fails(2, &["no group trains `block.9`", "block.1, head"]);
    case.run("run p.hift --resume must").fails(66, &["holds no checkpoint", "leave out `--resume must`"]);
    case.run("--help").works();
    case.run("--version").works();
}

// ------------------------------------------------------------------------------------- inputs

#[test]
fn inputs_that_are_not_there() {
    let case = Case::new();
    case.run("run q.hift").fails(66, &["q.hift cannot be read", "name a pipeline file"]);
    case.run("run .").fails(66, &["cannot be read"]);
    fs::remove_file(case.path("rows.jsonl")).unwrap();
    for command in ["check p.hift", "check p.hift --data", "plan p.hift"] {
        case.run(command).fails(66, &["there is no file `rows.jsonl`"]);
    }
    case.run("plan p.hift --no-data").works();
    case.run("run p.hift").fails(66, &["there is no file `rows.jsonl`", "looked for", "p.hift:4:"]);
    fs::create_dir(case.path("rows.jsonl")).unwrap();
    case.run("run p.hift").fails(66, &["`rows.jsonl` is a folder", "name the file itself"]);
    let case = Case::new();
    fs::remove_file(case.path("config.json")).unwrap();
    case.run("plan p.hift").fails(66, &["config.json", "p.hift:8:"]);
    case.run("inspect config.json").fails(66, &["config.json cannot be read"]);
    Case::stages().with("tokenizer.json", "bpe.json").run("run p.hift").fails(66, &["`bpe.json`"]);
    assert!(!case.path("runs").exists());
}

#[test]
fn a_configuration_that_is_wrong() {
    let check = |text: &str, texts: &[&str]| {
        let case = Case::new().write("config.json", text);
        case.run("run p.hift").fails(65, texts).fails(65, &["p.hift:8:"]);
        case.run("inspect config.json").fails(65, texts);
    };
    check(
        &config().to_string().replace("\"llama\"", "\"mamba\""),
        &["`mamba`", "known families are: bert, distilbert, gemma", "qwen2, qwen3, roberta"],
    );
    check("{", &["is not a JSON object"]);
    check("[]", &["is not a JSON object"]);
    let zero = config().to_string().replace("\"hidden_size\":16", "\"hidden_size\":0");
    check(&zero, &["`hidden_size`", "is 0, not a whole number from 1"]);
}

#[test]
fn weights_that_are_wrong() {
    let check = |code: i32, edit: &dyn Fn(&Case), texts: &[&str]| {
        let case = with_checkpoint();
        edit(&case);
        let before = case.files("model");
        case.run("run p.hift").fails(code, texts).fails(code, &["p.hift:8:"]);
        assert!(case.files("model") == before && !case.path("runs").exists());
    };
    let file = "model/model.safetensors";
    let cut = |bytes: usize| {
        move |case: &Case| {
            let whole = fs::read(case.path(file)).unwrap();
            case.put(file, &whole[..bytes]);
        }
    };
    check(65, &cut(500_000), &["is not a whole safetensors file", "has 500000 bytes", "download it again"]);
    check(65, &cut(100), &["is not a whole safetensors file"]);
    check(65, &cut(0), &["is not a whole safetensors file"]);
    let config = |from: &'static str, to: &'static str| {
        move |case: &Case| {
            let text = fs::read_to_string(case.path("model/config.json")).unwrap();
            case.put("model/config.json", text.replace(from, to));
        }
    };
    check(
        65,
        &config("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5"),
        &["no tensor `model.layers.4."],
    );
    check(
        65,
        &config("\"intermediate_size\": 172", "\"intermediate_size\": 170"),
        &["`model.layers.0.mlp.gate_proj.weight` has shape [172, 64], but config.json asks for [170, 64]"],
    );
    let index = |text: &'static str| move |case: &Case| case.put("model/model.safetensors.index.json", text);
    check(
        66,
        &index(r#"{"weight_map": {"a": "b.safetensors"}}"#),
        &["names b.safetensors, which is not there"],
    );
    check(65, &index("{"), &["is not JSON"]);
    check(65, &index("{}"), &["has no `weight_map`"]);
    let none = |case: &Case| fs::remove_file(case.path(file)).unwrap();
    check(66, &none, &["holds no model.safetensors and no pytorch_model.bin", "random(\"config.json\")"]);
}

#[test]
fn rows_that_are_wrong() {
    let check = |rows: &str, texts: &[&str]| {
        let case = Case::new().write("rows.jsonl", rows);
        case.run("check p.hift --data").fails(65, texts);
        case.run("run p.hift").fails(65, texts).fails(65, &["p.hift:", "help: "]);
        assert!(!case.path("runs").exists());
    };
    let good = row(1);
    check("", &["holds no rows"]);
    check(&format!("{good}{good}{{\"input_ids\": [3\n"), &["line 3"]);
    check("{\"ids\": [1, 2]}\n", &["no column `input_ids`", "its columns are `ids`"]);
    check("{\"input_ids\": [3, 4], \"labels\": [-100, -100]}\n", &["no token", "carries a loss"]);
    check(
        &format!("{good}{{\"input_ids\": [3, 64], \"labels\": [3, 4]}}\n"),
        &["line 2: `input_ids[1]` is 64", "ids are 0 to 63"],
    );
    check(&good, &["holding out 2 rows leaves nothing to train on", "write `holdout = none`"]);
}

#[test]
fn what_only_rows_can_tell_is_a_warning_and_no_more() {
    let check = |case: Case, text: &str| {
        for command in ["check p.hift --data", "plan p.hift"] {
            case.run(command).fails(0, &[text]);
        }
        assert!(!case.run("check p.hift").err.contains(text), "{text}: no row was read");
    };
    check(
        Case::new().with("micro_batch = 2", "micro_batch = 5 accumulate = 4"),
        "a step asks for 20 sequences, and there are only 10 to train on",
    );
    check(
        Case::new().with("holdout = 2 rows", "holdout = 8 rows"),
        "8 sequences are held out, and only 4 are left to train on",
    );
    check(
        Case::new()
            .with("steps = steps", "epochs = 1")
            .with("param steps = 8", "")
            .with("every = 3", "every = 9"),
        "`checkpoint` every 9 steps, but the run ends after 5",
    );
    check(
        Case::stages().with("max_length", "begin = \"one\" max_length"),
        "begins with the begin mark already",
    );
}

#[test]
fn lengths_and_prompts_beyond_the_models_positions() {
    let long = Case::stages().with("16 tokens", "33 tokens");
    long.run("run p.hift").fails(65, &["33 tokens", "32 positions", "`max_length = 32 tokens` or less"]);
    let prompt = "one ".repeat(40);
    let long = Case::stages().with("one two", prompt.trim());
    long.run("plan p.hift").fails(65, &["the prompt has 40 tokens, but the model has 32 positions"]);
    Case::stages().with("one two", "").run("run p.hift").fails(65, &["no token to go on from"]);
    let strange = Case::stages().edit("config.json", "\"vocab_size\":64", "\"vocab_size\":6");
    strange.run("run p.hift").fails(65, &["vocabulary"]);
}

#[test]
fn sizes_beyond_all_measure() {
    let case = Case::new().with("micro_batch = 2", "micro_batch = 9000000000000000");
    // There are ten rows to train on, so that is the batch.
    case.run("plan p.hift").works();
    case.run("plan p.hift --no-data").fails(65, &["more than one forward pass can take"]);
    let many = Case::new().with("every = 3 steps", "every = 9000000000000000 cycles");
    many.run("plan p.hift").works();
    let dwell = Case::new().with("rate = ", "dwell = 9000000000000000 steps rate = ");
    dwell.run("plan p.hift").works();
    Case::new().run("plan p.hift --set steps=9000000000000000").works();
    Case::new().run("plan p.hift --set steps=0").fails(2, &["`steps` is 0, but must be at least 1"]);
}

#[test]
fn rows_and_files_that_are_unusual_but_right() {
    // Byte order marks, line ends of another system, spaces and other letters in paths, another folder.
    let case = Case::new();
    let dressed = |name: &str| {
        format!("\u{feff}{}", fs::read_to_string(case.path(name)).unwrap().replace('\n', "\r\n"))
    };
    for name in ["p.hift", "rows.jsonl"] {
        case.put(&format!("ein Ordner/ü/{name}"), dressed(name));
    }
    case.put("ein Ordner/ü/config.json", config().to_string());
    let mut command = case.command("run");
    command.args(["ein Ordner/ü/p.hift", "--dir", "der Lauf"]);
    Said::of(&mut command, "run").works().is_silent();
    assert_eq!(case.metrics("der Lauf").len(), 8);
    assert!(case.path("ein Ordner/ü/out/final/model.safetensors").exists());
    // The same as without all that.
    case.run("run p.hift").works();
    assert_eq!(case.metrics("der Lauf"), case.metrics("runs/p"));

    // One row, a batch larger than the rows, less than an epoch.
    let case = Case::new()
        .write("rows.jsonl", row(1))
        .with("    holdout = 2 rows\n", "")
        .with("    evaluate { every = 4 steps }\n", "")
        .with("steps = steps micro_batch = 2", "epochs = 0.5 micro_batch = 64")
        .with("param steps = 8\n", "");
    case.run("run p.hift").works();
    assert_eq!(case.metrics("runs/p").len(), 1);
}

// ------------------------------------------------------------------------------------- the machine

#[test]
fn a_memory_limit_that_is_too_small() {
    let case = Case::new().with("micro_batch = 2", "micro_batch = 2 memory_limit = 1 KiB");
    for command in ["plan p.hift", "run p.hift"] {
        case.run(command)
            .fails(78, &["more than its limit of 1.00 KiB", "p.hift:14:", "lower `micro_batch`"]);
    }
    assert!(!case.path("runs").exists());
}

#[test]
fn a_device_that_is_not_there() {
    let case = Case::new().with("micro_batch = 2", "micro_batch = 2 device = cuda(0)");
    case.run("run p.hift").fails(69, &["cuda(0)", "write `device = auto` or `device = cpu`"]);
    assert!(!case.path("runs").exists());
}

// ------------------------------------------------------------------------------------- what is shown

#[test]
fn silent_where_nobody_looks() {
    let case = Case::new();
    case.run("run p.hift").works().is_silent();
    case.run("run p.hift").works().is_silent();
    let mut command = case.command("run p.hift --dir other");
    Said::of(command.env_clear(), "env -i hift run").works().is_silent();
    assert_eq!(case.metrics("runs/p"), case.metrics("other"));
    // With nowhere to write to.
    case.shell("exec \"$HIFT\" run p.hift --dir closed >&- 2>&- <&-").works();
}

#[test]
fn progress_in_every_style() {
    let case = Case::new();
    let plain = case.run("run p.hift --dir plain --progress plain");
    plain.fails(0, &["step 8/8", "held-out loss", "wrote "]);
    assert!(
        plain.out.contains("the model lies in") && plain.out.contains("metrics, events and the plan lie in")
    );
    case.run("run p.hift --dir plain --progress plain").works().out.contains("nothing to do");
    let lines = case.run("run p.hift --dir json --progress json");
    lines.works();
    let lines: Vec<Json> = lines.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| line["loss"].is_number()).count(), 8);
    case.run("run p.hift --dir none --progress none").works().is_silent();
    let outcome = case.run("run p.hift --dir outcome --json").json();
    assert_eq!(outcome["outcome"], "finished");
    assert_eq!(case.run("run p.hift --dir outcome --json").json()["outcome"], "nothing to do");
}

#[test]
fn plans_for_people_and_machines() {
    let case = Case::stages();
    let plan = case.run("plan p.hift");
    plan.works();
    for text in ["train a", "train b", "evaluate held", "generate talk", "export final", "peak"] {
        assert!(plan.out.contains(text), "{text} in {}", plan.out);
    }
    let json = case.run("plan p.hift --json").json();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["plan"]["stages"].as_array().unwrap().len(), 5);
    assert!(json["estimate"]["peak"].as_u64().unwrap() > 0);
    let program = Case::new().run("plan p.hift --program block.0").out.clone();
    assert!(program.contains("dies") || program.contains("last"), "{program}");
    assert!(program.contains("KiB") || program.contains(" B"), "{program}");
    case.shell("\"$HIFT\" plan p.hift | head -1").works();
    if Path::new("/dev/full").exists() {
        case.shell("\"$HIFT\" plan p.hift > /dev/full").fails(73, &["standard output"]);
    }
}

#[test]
fn models_and_rows_are_inspected() {
    let case = with_checkpoint();
    let text = case.run("inspect model");
    assert!(text.works().out.contains("model.layers.3.mlp.down_proj.weight"));
    let json = case.run("inspect model --json").json();
    assert_eq!((&json["family"], &json["vocabulary"]), (&json!("llama"), &json!(512)));
    assert_eq!(case.run("inspect config.json --json").json()["parameters"], 6_736);
    assert!(case.run("inspect p.hift").works().out.contains("rows"));
    let rows = case.run("inspect p.hift rows --rows 2 --json").json();
    assert_eq!((rows["rows"].as_array().unwrap().len(), &rows["audit"]["rows"]), (2, &json!(12)));
    case.run("inspect p.hift row").fails(2, &["the stages read: rows"]);
    case.run("inspect rows.jsonl").fails(2, &["rows.jsonl holds rows", "hift inspect FILE.hift"]);
    case.run("inspect nowhere").fails(66, &["nowhere", "name a Hugging Face directory"]);
}

// ------------------------------------------------------------------------------------- a run and its directory

#[test]
fn tokens_are_kept_between_commands() {
    let case = Case::stages();
    let through = |arguments: &str| {
        let mut command = case.command(arguments);
        Said::of(command.env("HIFT_CACHE", case.path("cache")), arguments)
    };
    let says = |said: Said, text: &str| {
        let out = said.works().out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(out.contains(text), "no `{text}` in {out}");
    };
    says(through("inspect p.hift"), "cache tokenised and kept");
    says(through("inspect p.hift"), "cache the tokens were there");
    through("check --data p.hift").works();
    let list = through("cache list --json").works().json();
    assert_eq!(list["entries"].as_array().unwrap().len(), 1, "{list}");
    says(through("cache list"), "words.txt tokenizer.json");
    case.put("words.txt", "one two\n".repeat(9));
    says(through("inspect p.hift"), "tokenised anew: `words.txt` was sha256");
    says(through("cache prune"), "0 datasets removed");
    says(through("cache prune --unused 0s"), "2 datasets removed");
    assert!(names(&case.path("cache")).is_empty());
    // Without a home and without a cache everything works, and nothing is kept.
    let bare = |arguments: &str| {
        let mut command = case.command(arguments);
        Said::of(command.env_clear(), arguments)
    };
    assert!(!bare("inspect p.hift").works().out.contains("cache"));
    bare("cache list").fails(2, &["there is no cache here", "HIFT_CACHE"]);
}

#[test]
#[cfg(unix)]
fn a_full_disk_under_the_token_cache_is_no_failure() {
    let case = Case::stages();
    // No file may become larger than a block, and nobody is killed for trying.
    let said = case.shell("trap '' XFSZ; ulimit -f 1; HIFT_CACHE=cache $HIFT inspect p.hift --rows 1");
    assert!(!said.works().out.contains("cache"), "{}", said.out);
    assert_eq!(names(&case.path("cache")), Vec::<String>::new());
    assert_eq!(said.out, case.run("inspect p.hift --rows 1").works().out);
}

#[test]
fn a_run_does_not_mind_that_its_data_changes() {
    let case = Case::new().with("param steps = 8", "param steps = 300");
    case.run("run p.hift --dir whole").works();
    let whole = case.weights("out/final");
    for cache in ["", "cache"] {
        fs::remove_dir_all(case.path("out")).unwrap();
        let rows = fs::read(case.path("rows.jsonl")).unwrap();
        let mut command = case.command("run p.hift --resume never --progress json");
        command.env("HIFT_CACHE", cache).stderr(Stdio::piped()).stdout(Stdio::piped());
        let mut run = command.spawn().unwrap();
        let mut lines = BufReader::new(run.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("\"step\":5,") {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the run ended too soon");
        }
        // In its place, and shorter: what was read must not come from there any more.
        case.put("rows.jsonl", "{");
        lines.read_to_string(&mut line).unwrap();
        assert!(run.wait().unwrap().success(), "{line}");
        case.put("rows.jsonl", rows);
        assert!(case.weights("out/final") == whole, "cache `{cache}`");
    }
}

#[test]
fn a_run_leaves_what_it_did() {
    let case = Case::new();
    case.run("run p.hift --set steps=7").works();
    assert_eq!(case.checkpoints("runs/p"), ["sft-6", "sft-7"]);
    let text = fs::read_to_string(case.path("runs/p/pipeline.hift")).unwrap();
    for line in [
        "    steps        = 7       # param steps, --set\n",
        "    micro_batch  = 2       # written, p.hift:14\n",
        "    clip         = none    # default\n",
        "    source  = json(\"../../rows.jsonl\")",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    // It says the same by itself.
    case.run("check runs/p/pipeline.hift").works();
    let plan = |file: &str| {
        let json: Json = serde_json::from_str(&case.run(&format!("plan {file} --json")).works().out).unwrap();
        json["plan"]["stages"][0].clone()
    };
    let (mut own, mut original) = (plan("runs/p/pipeline.hift"), plan("p.hift --set steps=7"));
    for (plan, folder) in [(&mut own, "../../"), (&mut original, "")] {
        assert_eq!(plan["data"]["source"]["path"], format!("{folder}rows.jsonl"));
        assert_eq!(plan["model"]["weights"]["config"], format!("{folder}config.json"));
        (plan["data"]["source"], plan["model"]["weights"]) = (Json::Null, Json::Null);
    }
    assert_eq!(own, original);
    // Neither words nor the folder that it is called from make another run of it.
    let commented =
        fs::read_to_string(case.path("p.hift")).unwrap().replace("param steps", "# steps\nparam steps");
    case.put("p.hift", commented);
    case.shell(
        "mkdir elsewhere; cd elsewhere; $HIFT run ../p.hift --set steps=7 --dir ../runs/p --resume must",
    )
    .works();
    assert_eq!(case.json("runs/p/plan.json")["plan"]["stages"][0]["steps"], 7);
    let lock = case.json("runs/p/hift.lock");
    let inputs = lock["inputs"].as_array().unwrap().iter();
    let inputs = inputs.map(|input| (&input["path"], input["sha256"].as_str().unwrap().len()));
    let expected = [json!("p.hift"), json!("rows.jsonl"), json!("config.json")];
    assert!(inputs.eq(expected.iter().map(|path| (path, 64))), "{lock}");
    assert_eq!(lock["params"], json!({ "steps": "7" }));
    // Before the first step, and twice in its course.
    assert_eq!(case.evaluations("runs/p").len(), 3);
    let last = case.lines("runs/p/events.jsonl").pop().unwrap();
    assert_eq!(last["event"], "finish");
    assert_eq!(
        names(&case.path("out/final")),
        ["README.md", "config.json", "hift.json", "model.safetensors"]
    );
    let card = fs::read_to_string(case.path("out/final/README.md")).unwrap();
    for line in [
        "A `llama` model of 6,736 parameters, started from random weights",
        "- data: `rows.jsonl`, 10 sequences to learn from, 2 held out",
        "- 4 groups of layers in turn, 7 updates of 2 sequences each",
        "| sft | 7 | loss | ",
        "AutoModelForCausalLM.from_pretrained(\"final\")",
    ] {
        assert!(card.contains(line), "{line} in {card}");
    }
    assert_eq!(names(&case.path("out")), ["final"]);
    #[cfg(unix)]
    {
        // As readable as any other file that is made here.
        use std::os::unix::fs::MetadataExt;
        let mode = |name: &str| fs::metadata(case.path(name)).unwrap().mode();
        assert_eq!(mode("out/final/model.safetensors"), mode("out/final/config.json"));
        assert_eq!(mode("runs/p/checkpoints/sft-7/weights.safetensors"), mode("runs/p/plan.json"));
    }
}

#[test]
fn a_rendering_says_every_value_and_its_origin() {
    let case = Case::new();
    let rendered = case.run("render p.hift --set steps=7");
    let text = rendered.works().out.clone();
    assert!(text.starts_with("hift 1\n\ndata rows {\n    source  = json(\"rows.jsonl\")"), "{text}");
    assert!(text.contains("    steps        = 7       # param steps, --set\n"), "{text}");
    let plain = case.run("render p.hift --set steps=7 --plain").works().out.clone();
    assert!(!plain.contains('#'), "{plain}");
    // Both mean what the file means.
    let plan = |arguments: &str| {
        let json: Json = serde_json::from_str(&case.run(arguments).works().out).unwrap();
        json["plan"].clone()
    };
    for text in [&text, &plain] {
        case.put("rendered.hift", text);
        assert_eq!(plan("plan rendered.hift --json"), plan("plan p.hift --set steps=7 --json"));
        assert_eq!(case.run("render rendered.hift --plain").works().out, plain);
    }
    let json: Json = serde_json::from_str(&case.run("render p.hift --json").works().out).unwrap();
    let blocks = json["blocks"].as_array().unwrap();
    let train = blocks.iter().find(|block| block["kind"] == "train").unwrap();
    let key = |name: &str| train["keys"].as_array().unwrap().iter().find(|key| key["key"] == name).unwrap();
    let place = json!({ "file": "p.hift", "line": 2, "column": 15 });
    let origin =
        json!({ "kind": "param", "of": "steps", "through": [], "calculation": null, "place": place });
    assert_eq!(*key("steps"), json!({ "key": "steps", "value": "8", "origin": origin, "within": [] }));
    assert_eq!(key("clip")["origin"]["kind"], "default");
    // What is wrong is said, and nothing else.
    let wrong = Case::new().with("micro_batch = 2", "micro_batch = 0");
    let said = wrong.run("render p.hift");
    said.fails(65, &["`micro_batch` is 0, but must be at least 1"]);
    assert_eq!(said.out, "");
    Case::new().run("render p.hift --profile fast").fails(2, &["the file has no profile `fast`"]);
    Case::new().run("render p.hift --plain --json").fails(2, &["cannot be used with"]);
    Case::new().run("render nowhere.hift").fails(66, &["nowhere.hift cannot be read"]);
    case.put("p.hift", b"hift 1\n# \xff\n");
    case.run("render p.hift").fails(65, &["p.hift is not UTF-8 text: byte 9 is wrong"]);
}

#[test]
fn a_directory_of_another_run() {
    let case = Case::new();
    case.run("run p.hift").works();
    let before = case.files("runs/p");
    let way_out = "a folder of its own with `--dir`, or start anew here with `--new`";
    case.run("run p.hift --set steps=9").fails(65, &["runs/p holds a run of another plan", way_out]);
    case.run("run p.hift --set steps=9 --progress plain").fails(
        65,
        &[
            "runs/p holds a run of another plan",
            way_out,
            "from that run to this one: train sft",
            "steps 8 → 9",
        ],
    );
    let rows = fs::read_to_string(case.path("rows.jsonl")).unwrap();
    case.put("rows.jsonl", rows.replace("10", "11"));
    case.run("run p.hift").fails(65, &["`rows.jsonl` has changed since the run in runs/p began", way_out]);
    assert!(case.files("runs/p") == before);
    case.run("run p.hift --new").works();
    let aside = case.files("runs/p.1");
    assert!(aside.into_values().eq(before.into_values()));
    fs::remove_file(case.path("runs/p/plan.json")).unwrap();
    case.run("run p.hift").fails(65, &["its plan.json cannot be read", way_out]);
}

#[test]
fn what_changes_no_weight_may_change_in_the_course_of_a_run() {
    let case = Case::new().with("param steps = 8", "param steps = 300");
    case.run("run p.hift --dir whole").works();
    let whole = case.weights("out/final");
    let running = case.start("run p.hift", &["\"steps\":300", "\"step\":20,"]);
    running.signal("INT");
    running.end().fails(75, &[]);
    let case = case.with("every = 4 steps }", "every = 7 steps }").with("keep = 2", "keep = 3");
    let said = case.run("run p.hift --progress plain");
    said.fails(0, &["changed: `evaluate` of sft, `checkpoint` of sft", "going on from"]);
    assert_eq!(case.metrics("runs/p"), case.metrics("whole"));
    assert!(case.weights("out/final") == whole);
    assert_eq!(case.checkpoints("runs/p"), ["sft-294", "sft-297", "sft-300"]);
    let lines = case.lines("runs/p/events.jsonl");
    assert!(lines.iter().any(|event| event["event"] == "changed"));
}

#[test]
fn the_pipeline_of_a_run_directory_is_that_run() {
    let case = Case::new().with("param steps = 8", "param steps = 300");
    let running = case.start("run p.hift --set steps=299", &["\"steps\":299", "\"step\":20,"]);
    running.signal("INT");
    running.end().fails(75, &[]);
    let text = || fs::read_to_string(case.path("runs/p/pipeline.hift")).unwrap();
    let before = text();
    let own = "run runs/p/pipeline.hift";
    let running = case.start(&format!("{own} --dir runs/p --resume must"), &["\"step\":40,"]);
    running.signal("INT");
    running.end().fails(75, &[]);
    case.run(own).works();
    assert_eq!(text(), before);
    assert_eq!(case.metrics("runs/p").len(), 299);
    let run = |arguments: &str| case.run(&format!("{arguments} --json")).json()["outcome"].clone();
    assert_eq!(run(own), "nothing to do");
    assert_eq!(run("run p.hift --set steps=299"), "nothing to do");
    // Data that is another is another, from there as from here.
    case.put("rows.jsonl", (1..13).map(row).collect::<String>());
    case.run(own).fails(65, &["has changed since the run in runs/p began"]);
}

#[test]
fn folders_that_hold_other_things_are_left_alone() {
    let case = Case::new().write("notes/thesis.txt", "all I have").write("notes/pipeline.hift", "mine");
    let before = case.files("notes");
    case.run("run p.hift --dir notes")
        .fails(73, &["notes holds other things and is not a run directory", "--dir"]);
    case.run("run p.hift --dir .").fails(73, &["is not a run directory"]);
    assert!(case.files("notes") == before);
    let to = |to: &str| Case::new().write("notes/thesis.txt", "all I have").with("out/final", to);
    let case = to("notes");
    case.run("run p.hift")
        .fails(73, &["is there already and is not an earlier export", "another folder for `to`"]);
    assert_eq!(names(&case.path("notes")), ["thesis.txt"]);
    for taken in ["runs/p", "runs", ".", "..", "runs/p/checkpoints/sft-3"] {
        let case = to(taken);
        case.run("run p.hift").fails(73, &["would replace the run"]);
        assert!(!case.path("runs/p/plan.json").exists());
    }
    for below_a_file in ["notes/thesis.txt", "notes/thesis.txt/final"] {
        let case = to(below_a_file);
        case.run("run p.hift").fails(73, &["thesis.txt"]);
        assert_eq!(fs::read_to_string(case.path("notes/thesis.txt")).unwrap(), "all I have");
    }
    let case = Case::new();
    for below_a_file in ["rows.jsonl", "rows.jsonl/run"] {
        case.run(&format!("run p.hift --dir {below_a_file}")).fails(73, &["cannot be written", "--dir"]);
    }
}

#[test]
fn a_models_folder_is_not_an_export() {
    let case = with_checkpoint().with("out/final", "model");
    let before = case.files("model");
    case.run("run p.hift").fails(73, &["is there already and is not an earlier export"]);
    assert!(case.files("model") == before && !case.path("runs").exists());
}

#[test]
fn an_export_replaces_an_export_and_nothing_else() {
    let case = Case::new();
    case.run("run p.hift").works();
    let first = case.weights("out/final");
    case.run("run p.hift --set steps=2 --dir short").works();
    let second = case.weights("out/final");
    assert!(first != second);
    case.put("out/final/README.md", "about this model");
    case.run("run p.hift --dir again").fails(73, &["holds `README.md` too, which would be lost"]);
    assert!(case.weights("out/final") == second);
    fs::remove_file(case.path("out/final/README.md")).unwrap();
    // A process that ended between two renames: the old export gets its name back.
    fs::rename(case.path("out/final"), case.path("out/.final.old")).unwrap();
    case.run("run p.hift --dir q --set steps=3").works();
    assert_eq!(names(&case.path("out")), ["final"]);
    // An export that somebody has removed is made again, without training again.
    fs::remove_dir_all(case.path("out")).unwrap();
    let before = case.metrics("runs/p");
    case.run("run p.hift --progress plain").fails(0, &["is gone and is written again"]);
    assert!(case.weights("out/final") == first);
    assert_eq!(case.metrics("runs/p"), before);
}

// ------------------------------------------------------------------------------------- things go wrong

#[test]
fn a_loss_that_is_not_a_number() {
    let case = Case::new();
    case.run("run p.hift").works();
    let export = case.files("out");
    let case = case
        .with("constant(1e-2)", "constant(1e15)")
        .with("optimizer adamw", "optimizer sgd")
        .with("optimizer = adamw", "optimizer = sgd")
        .with("every = 3 steps", "every = 1 step")
        .with("    evaluate { every = 4 steps }\n", "");
    case.run("run p.hift --dir wild").fails(
        1,
        &[
            "is NaN at step",
            "of stage `sft`, group",
            "the loss of the step before was",
            "lower the rate's peak",
        ],
    );
    let checkpoints = case.files("wild/checkpoints");
    assert!(!checkpoints.is_empty() && checkpoints.keys().all(|path| !path.ends_with(".writing")));
    assert_eq!(case.lines("wild/events.jsonl").pop().unwrap()["event"], "fail");
    // Again from the last checkpoint, to the same end.
    case.run("run p.hift --dir wild").fails(1, &["is NaN at step"]);
    assert!(case.files("wild/checkpoints") == checkpoints);
    assert!(case.files("out") == export);
    // What comes of one step alone is not made of numbers that a model can use; the rows held out show it.
    let case = case.with("checkpoint {", "evaluate { every = 1 step }\n    checkpoint {");
    let held_out = case.run("run p.hift --dir held");
    held_out.fails(1, &["the held-out loss is", "after step", "of stage `sft`, group"]);
    assert!(case.files("out") == export);
}

#[test]
fn a_disk_that_is_full() {
    // A limit on the size of files stands in for a full disk: 24 KiB, or 48 where the shell counts in KiB. Weights
    // take 29 KiB and their states twice that.
    let full = "trap '' XFSZ; ulimit -f 48; exec \"$HIFT\" run p.hift";
    let case = Case::new();
    case.run("run p.hift --dir whole").works();
    let export = case.files("out");
    // In a checkpoint.
    case.shell(&format!("{full} --dir tight")).fails(73, &["cannot be written", "free some space"]);
    assert!(case.checkpoints("tight").is_empty());
    case.run("run p.hift --dir tight").works();
    assert_eq!(case.metrics("tight"), case.metrics("whole"));
    assert_eq!(case.evaluations("tight"), case.evaluations("whole"));
    // In an export.
    let case = case.with("    checkpoint { every = 3 steps keep = 2 }\n", "");
    let full = full.replace("48", "24");
    case.shell(&format!("{full} --dir bare --set steps=2")).fails(73, &["cannot be written"]);
    assert!(case.files("out") == export);
    assert_eq!(names(&case.path("out")), ["final"]);
    assert!(case.checkpoints("bare").is_empty());
    // Not even the plan.
    case.shell("trap '' XFSZ; ulimit -f 1; exec \"$HIFT\" run p.hift --dir none")
        .fails(73, &["cannot be written"]);
}

#[test]
fn what_was_trained_is_kept_when_a_later_stage_fails() {
    let case = Case::new()
        .with("    checkpoint { every = 3 steps keep = 2 }\n", "")
        .with("param steps = 8", "param steps = 300");
    let running = case.start("run p.hift", &["\"step\":2,"]);
    case.put("out/final/notes.txt", "written meanwhile");
    running.end().fails(73, &["is not an earlier export", "what was trained is kept in"]);
    assert_eq!(case.checkpoints("runs/p"), ["sft-300"]);
    fs::remove_dir_all(case.path("out/final")).unwrap();
    case.run("run p.hift").works();
    assert_eq!(case.metrics("runs/p").len(), 300);
    assert!(case.path("out/final/model.safetensors").exists());
}

// ------------------------------------------------------------------------------------- interrupted

#[test]
fn an_interrupted_run_goes_on_as_if_nothing_had_been() {
    let case = Case::new().with("param steps = 8", "param steps = 300");
    case.run("run p.hift --dir whole").works();
    let whole = case.weights("out/final");
    for (signal, sign) in [("INT", "\"step\":5,"), ("TERM", "\"step\":20,"), ("HUP", "\"step\":35,")] {
        if signal == "HUP" && !hang_ups_arrive() {
            println!("skipped: SIGHUP is ignored here");
            continue;
        }
        let running = case.start("run p.hift", &["\"steps\":300", sign]);
        running.signal(signal);
        let said = running.end();
        let what = format!("interrupted (SIG{signal}); what was done is kept in");
        said.fails(75, &[&what, "call the same command again"]);
        assert!(!case.checkpoints("runs/p").is_empty());
        assert_eq!(case.lines("runs/p/events.jsonl").pop().unwrap()["event"], "interrupt");
    }
    assert!(case.weights("out/final") == whole);
    fs::remove_dir_all(case.path("out")).unwrap();
    case.run("run p.hift").works().is_silent();
    assert_eq!(case.metrics("runs/p"), case.metrics("whole"));
    assert_eq!(case.evaluations("runs/p"), case.evaluations("whole"));
    assert!(case.weights("out/final") == whole);
    assert_eq!(case.checkpoints("runs/p"), case.checkpoints("whole"));
    let said = case.run("run p.hift --progress plain");
    assert!(said.works().out.contains("nothing to do: runs/p holds this run, finished"));
}

#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint() {
    let case = Case::new().with("param steps = 8", "param steps = 300");
    case.run("run p.hift --dir whole").works();
    let running = case.start("run p.hift", &["\"steps\":300", "\"step\":20,"]);
    running.signal("KILL");
    assert_eq!(running.end().code, None);
    // What a process that is killed while it writes can leave behind.
    case.put("runs/p/checkpoints/.sft-90.writing/weights.safetensors", "half");
    case.put("runs/p/checkpoints/sft-91/weights.safetensors", "a checkpoint without a position is none");
    let events = fs::read_to_string(case.path("runs/p/events.jsonl")).unwrap();
    case.put("runs/p/events.jsonl", format!("{events}{{\"time\":\"20"));
    case.put("out/.final.writing/model.safetensors", "half");
    case.run("run p.hift --progress plain").fails(0, &["going on from"]);
    assert_eq!(case.metrics("runs/p"), case.metrics("whole"));
    assert_eq!(case.checkpoints("runs/p"), ["sft-297", "sft-300", "sft-91"]);
    assert_eq!(names(&case.path("out")), ["final"]);
    assert_eq!(case.lines("runs/p/events.jsonl").pop().unwrap()["event"], "finish");
}

#[test]
fn a_broken_checkpoint_is_not_taken_for_a_good_one() {
    let case = Case::new().with("param steps = 8", "param steps = 300");
    let running = case.start("run p.hift", &["\"steps\":300", "\"step\":20,"]);
    running.signal("INT");
    running.end().fails(75, &[]);
    let last = case.checkpoints("runs/p").pop().unwrap();
    let file = format!("runs/p/checkpoints/{last}/states.safetensors");
    let states = fs::read(case.path(&file)).unwrap();
    case.put(&file, &states[..states.len() / 2]);
    // One line, even where nobody looks.
    let said = case.run("run p.hift");
    said.fails(0, &[&last, "is damaged (states.safetensors is not what was written", "it is set aside as"]);
    assert_eq!(said.err.lines().count(), 1);
    assert!(case.path(&format!("runs/p/checkpoints/{last}.damaged/states.safetensors")).exists());
    case.run("run p.hift --dir whole").works();
    assert_eq!(case.metrics("runs/p"), case.metrics("whole"));
    assert!(case.lines("runs/p/events.jsonl").iter().any(|event| event["event"] == "damaged"));
}

#[test]
fn two_runs_at_once() {
    let case = Case::new().with("param steps = 8", "param steps = 100000");
    let first = case.start("run p.hift", &["\"step\":1,"]);
    let holder = format!("another run (process {} on ", first.child.id());
    case.run("run p.hift").fails(75, &[&holder, ", since 20", "is at work in runs/p", "--wait 30m", "--dir"]);
    case.run("run p.hift --new").fails(75, &[&holder]);
    case.run("run p.hift --wait 200ms --progress plain").fails(75, &[&holder, "waiting for it to end"]);
    // What waits goes on when the other one ends.
    let second = case.start("run p.hift --wait 1m --max-time 2s", &["waiting for it to end"]);
    first.signal("INT");
    first.end().fails(75, &["interrupted"]);
    second.end().fails(75, &["going on from"]);
}

// ------------------------------------------------------------------------------------- several stages

#[test]
fn stages_follow_one_another() {
    let case = Case::stages();
    let said = case.run("run p.hift --json");
    let outcome = said.works();
    let outcome = outcome.json();
    assert_eq!(outcome["outcome"], "finished");
    assert_eq!(outcome["results"]["evaluations"][0]["stage"], "held");
    assert_eq!(outcome["results"]["texts"][0]["prompt"], "one two");
    let stages: Vec<Json> = case.metrics("runs/p").iter().map(|line| line["stage"].clone()).collect();
    assert_eq!(stages.iter().filter(|stage| **stage == "a").count(), 5);
    assert_eq!(stages.iter().filter(|stage| **stage == "b").count(), 200);
    let files = ["README.md", "config.json", "hift.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(names(&case.path("out/final")), files);
    // The export is a model that can be trained further.
    let case = case
        .with(r#"random("config.json", seed = 1)"#, "\"out/final\"")
        .with("to = \"out/final\"", "to = \"out/more\"");
    case.run("run p.hift --dir more").works();

    // The same, interrupted in the second stage.
    let case = Case::stages();
    case.run("run p.hift --dir whole").works();
    let whole = case.weights("out/final");
    let running = case.start("run p.hift", &["\"stage\":\"b\",\"step\":4,"]);
    running.signal("INT");
    running.end().fails(75, &["interrupted"]);
    let checkpoints = case.checkpoints("runs/p");
    assert!(checkpoints.contains(&"a-5".to_string()) && checkpoints.len() == 2, "{checkpoints:?}");
    case.run("run p.hift").works();
    assert_eq!(case.metrics("runs/p"), case.metrics("whole"));
    assert_eq!(case.evaluations("runs/p"), case.evaluations("whole"));
    assert!(case.weights("out/final") == whole);
}

#[test]
fn an_interrupted_evaluation_gives_no_figures() {
    // So many held-out rows that the signal comes while they are evaluated, after the last step.
    let case = Case::new()
        .write("rows.jsonl", (0..3000).map(row).collect::<String>())
        .with("2 rows", "2990 rows")
        .with("param steps = 8", "param steps = 2")
        .with("    checkpoint { every = 3 steps keep = 2 }\n", "");
    let running = case.start("run p.hift", &["\"step\":2,"]);
    running.signal("INT");
    running.end().fails(75, &["interrupted"]);
    let steps = || case.evaluations("runs/p").iter().map(|e| e.1.clone()).collect::<Vec<_>>();
    assert_eq!(steps(), [json!(0)], "only what came before the first step");
    assert!(!case.path("out").join("final").exists());
    case.run("run p.hift").works();
    assert_eq!(steps(), [json!(0), json!(2)]);
    assert_eq!(case.metrics("runs/p").len(), 2);
}

// ------------------------------------------------------------------------------------------------- the layout

const LOOSE: &str = "hift 1\nparam  a=1 # one\nparam b = 2\n";
const NEAT: &str = "hift 1\n\nparam a = 1  # one\nparam b = 2\n";

#[test]
fn fmt_writes_what_changes_and_names_it() {
    let case = Case::new().write("a.hift", LOOSE).write("b.hift", NEAT);
    let before = fs::metadata(case.path("b.hift")).unwrap().modified().unwrap();
    let there = names(case.folder.path());
    assert_eq!(case.run("fmt a.hift b.hift").works().out, "a.hift\n");
    for name in ["a.hift", "b.hift"] {
        assert_eq!(fs::read_to_string(case.path(name)).unwrap(), NEAT);
    }
    assert_eq!(fs::metadata(case.path("b.hift")).unwrap().modified().unwrap(), before);
    assert_eq!(names(case.folder.path()), there, "nothing is left beside");
    case.run("fmt a.hift b.hift").works().is_silent();
    case.run("fmt --check --diff a.hift b.hift").works().is_silent();
}

#[cfg(unix)]
#[test]
fn fmt_keeps_permissions_and_links() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let case = Case::new().write("sub/a.hift", LOOSE);
    fs::set_permissions(case.path("sub/a.hift"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("sub/a.hift", case.path("link.hift")).unwrap();
    case.run("fmt link.hift").works();
    assert!(fs::symlink_metadata(case.path("link.hift")).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(case.path("sub/a.hift")).unwrap(), NEAT);
    assert_eq!(fs::metadata(case.path("sub/a.hift")).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn fmt_can_say_what_it_would_do() {
    let case = Case::new().write("a.hift", LOOSE).write("b.hift", NEAT);
    let said = case.run("fmt --check a.hift b.hift");
    said.fails(65, &["1 of 2 files is not in the layout of the language"]);
    assert_eq!(said.out, "a.hift\n");

    let diff = "--- a.hift\n+++ a.hift\n@@ -1,3 +1,4 @@\n hift 1\n-param  a=1 # one\n+\n+param a = 1  # one\n param b = 2\n";
    assert_eq!(case.run("fmt --diff a.hift b.hift").works().out, diff);
    let both = case.run("fmt --diff --check a.hift");
    assert_eq!(both.fails(65, &["the file is not in the layout of the language"]).out, diff);
    assert_eq!(fs::read_to_string(case.path("a.hift")).unwrap(), LOOSE);
}

#[test]
fn fmt_reads_and_writes_standard_streams() {
    let case = Case::new().write("a.hift", LOOSE).write("wrong.hift", "model m { a = }\n");
    assert_eq!(case.shell("$HIFT fmt - < a.hift").works().out, NEAT);
    assert_eq!(case.shell("$HIFT fmt - < a.hift | $HIFT fmt -").works().out, NEAT);
    case.shell("$HIFT fmt - < a.hift | $HIFT fmt --check -").works().is_silent();
    assert_eq!(case.shell("$HIFT fmt --check - < a.hift").fails(65, &[]).out, "standard input\n");
    let said = case.shell("$HIFT fmt - < wrong.hift");
    assert_eq!(said.fails(65, &["standard input:1:"]).out, "");
}

#[test]
fn fmt_leaves_alone_what_it_cannot_read_and_does_the_rest() {
    let wrong = "hift 1\ntrain a {\n  b = }\n c=1\n}\ntrain  d { e }\n";
    let case = Case::new().write("a.hift", wrong).write("b.hift", LOOSE).write("c.hift", [0xff, b'#']);
    case.run("fmt a.hift").fails(65, &["a.hift:3:", "a.hift:6:"]);
    let said = case.run("fmt a.hift c.hift b.hift gone.hift");
    said.fails(
        65,
        &["a.hift:3:", "c.hift is not UTF-8", "gone.hift cannot be read", "3 of 4 files could not"],
    );
    assert_eq!(said.out, "b.hift\n");
    assert_eq!(fs::read_to_string(case.path("a.hift")).unwrap(), wrong);
    assert_eq!(fs::read_to_string(case.path("b.hift")).unwrap(), NEAT);
    case.run("fmt gone.hift").fails(66, &["gone.hift cannot be read"]);
    case.run("fmt").fails(2, &["FILE"]);
}

#[test]
fn fmt_does_not_write_what_is_read_only() {
    let case = Case::new().write("a.hift", LOOSE);
    let mut permissions = fs::metadata(case.path("a.hift")).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(case.path("a.hift"), permissions).unwrap();
    case.run("fmt a.hift").fails(73, &["a.hift cannot be written: it is read-only", "allow writing"]);
    assert_eq!(fs::read_to_string(case.path("a.hift")).unwrap(), LOOSE);
}

#[test]
fn fmt_looks_for_pipelines_in_folders() {
    let case = Case::new().write("d/b.hift", LOOSE).write("d/inner/a.hift", LOOSE).write("d/c.txt", LOOSE);
    let case = case.write("d/.hidden/a.hift", LOOSE);
    assert_eq!(case.run("fmt d").works().out, "d/b.hift\nd/inner/a.hift\n");
    for untouched in ["d/c.txt", "d/.hidden/a.hift"] {
        assert_eq!(fs::read_to_string(case.path(untouched)).unwrap(), LOOSE);
    }
    fs::create_dir(case.path("empty")).unwrap();
    case.run("fmt empty").fails(66, &["empty has no pipeline file in it"]);
}

#[test]
fn fmt_finds_nothing_to_do_in_the_shipped_pipelines() {
    let mut command = Command::new(HIFT);
    command.args(["fmt", "--check", "pipelines"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    Said::of(&mut command, "fmt --check pipelines").works().is_silent();
}

#[test]
fn on_a_terminal_a_run_shows_steps_cycle_loss_and_memory() {
    let case = Case::new().with("param steps = 8", "param steps = 600");
    let on_terminal = |variable: &str| {
        let script =
            "script -qec \"stty rows 30 cols 80; exec \\\"$HIFT\\\" run p.hift --new\" /dev/null < /dev/null";
        case.shell(&format!("command -v script > /dev/null || exit 99; {variable} {script}"))
    };
    let said = on_terminal("");
    if said.code == Some(99) {
        println!("skipped: there is no `script` to make a terminal with");
        return;
    }
    said.works();
    // How many steps are drawn is the clock's matter.
    for text in [
        "sft    ",
        "cycle  ",
        "loss   ",
        "memory ",
        " of 600 · ",
        " s left",
        " tokens/s",
        " of 150 · now ",
        " · rate 1e-2",
        " · held-out ",
        " of 104.82 KiB foretold",
        "█",
        "\u{1b}[36m",
    ] {
        assert!(said.out.contains(text), "no `{text}` in {}", said.out);
    }
    let plain = on_terminal("NO_COLOR=1");
    assert!(plain.works().out.contains('━') && !plain.out.contains("\u{1b}[36m"), "{}", plain.out);
}
