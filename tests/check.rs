//! `hift check` and `hift explain` from outside: fixes on the disk, and problems for machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use tempfile::TempDir;

const WRONG: &str = "hift 1
model llama { wieghts = \"llama\", recompute = nome }
data rows { source = json(\"a\") format = text holdout = 5% }
";

struct Folder(TempDir);

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Folder {
    fn with(name: &str, text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.path(name), text).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn hift(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hift"));
        let output = command.args(arguments).current_dir(self.0.path()).output().unwrap();
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_file_is_fixed_where_it_lies() {
    let folder = Folder::with("a.hift", WRONG);
    let dry = folder.hift(&["check", "--fix", "--dry-run", "a.hift"]);
    assert_eq!((dry.code, folder.read("a.hift").as_str()), (65, WRONG));
    assert!(dry.out.contains("a.hift: 3 mistakes would be fixed"), "{}", dry.out);

    let said = folder.hift(&["check", "--fix", "a.hift"]);
    let fixed = WRONG.replace("wieghts", "weights").replace("\",", "\"").replace("nome", "none");
    assert_eq!(folder.read("a.hift"), fixed);
    assert!(said.out.contains("a.hift: 3 mistakes fixed\n  line 2: "), "{}", said.out);
    assert!(said.out.contains("a.hift: no mistakes"), "{}", said.out);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(folder.names(), ["a.hift"], "nothing else is left behind");

    let again = folder.hift(&["check", "--fix", "a.hift"]);
    assert!(!again.out.contains("fixed"), "{}", again.out);
}

#[test]
fn a_fixed_file_keeps_its_line_ends_and_what_cannot_be_fixed() {
    let folder = Folder::with("a.hift", "hift 1\r\nmodel llama { wieghts = \"llama\"  colour = red }\r\n");
    let said = folder.hift(&["check", "--fix", "a.hift"]);
    assert_eq!(folder.read("a.hift"), "hift 1\r\nmodel llama { weights = \"llama\"  colour = red }\r\n");
    assert_eq!(said.code, 65);
    assert!(said.err.contains("`colour` is no key of a model block"), "{}", said.err);
}

#[cfg(unix)]
#[test]
fn a_fixed_file_keeps_its_permissions_and_links() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::with("a.hift", WRONG);
    fs::set_permissions(folder.path("a.hift"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("a.hift", folder.path("link.hift")).unwrap();
    folder.hift(&["check", "--fix", "link.hift"]);
    assert!(folder.read("a.hift").contains("weights"));
    assert!(fs::symlink_metadata(folder.path("link.hift")).unwrap().is_symlink());
    assert_eq!(fs::metadata(folder.path("a.hift")).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn only_the_files_that_are_named_are_fixed() {
    let folder = Folder::with("a.hift", "hift 1\nimport \"b.hift\"\nmodle llama { weights = \"llama\" }\n");
    let imported = "hift 1\nmodel small { wieghts = \"small\" }\n";
    fs::write(folder.path("b.hift"), imported).unwrap();
    let said = folder.hift(&["check", "--fix", "a.hift"]);
    assert_eq!(folder.read("b.hift"), imported);
    assert!(folder.read("a.hift").contains("model llama"));
    assert_eq!(said.code, 65);
    assert!(said.err.contains("b.hift:2:15"), "{}", said.err);
}

#[test]
fn json_for_machines() {
    let folder = Folder::with("a.hift", WRONG);
    fs::write(folder.path("b.hift"), "hift 1\nmodel llama { weights = \"llama\" }\n").unwrap();
    let said = folder.hift(&["check", "--format", "json", "a.hift", "b.hift", "c.hift"]);
    assert_eq!((said.code, said.err.as_str()), (65, ""));
    let json: Json = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["schema"], 1);
    let count = |i: usize| {
        let file = &json["files"][i];
        (file["file"].as_str().unwrap(), file["errors"].as_u64().unwrap(), file["warnings"].as_u64().unwrap())
    };
    assert_eq!([count(0), count(1), count(2)], [("a.hift", 3, 0), ("b.hift", 0, 1), ("c.hift", 1, 0)]);
    let problems = json["problems"].as_array().unwrap();
    let codes: Vec<&str> = problems.iter().map(|problem| problem["code"].as_str().unwrap()).collect();
    assert_eq!(
        codes,
        [
            "hift::lang::unknown_key",
            "hift::lang::syntax",
            "hift::lang::unknown_word",
            "hift::lang::no_stage",
            "hift::cli::no_pipeline",
        ]
    );
    let key = &problems[0];
    for (name, value) in [
        ("severity", Json::from("error")),
        ("exit_code", 65.into()),
        ("file", "a.hift".into()),
        ("line", 2.into()),
        ("column", 15.into()),
        ("end_column", 22.into()),
        ("help", "did you mean `weights`?".into()),
    ] {
        assert_eq!(key[name], value, "{name}");
    }
    let span = &key["span"];
    let span = span["start"].as_u64().unwrap() as usize..span["end"].as_u64().unwrap() as usize;
    assert_eq!(&WRONG[span], "wieghts");
    assert_eq!((&key["fix"][0]["text"], &key["fix"][0]["line"]), (&"weights".into(), &2.into()));
    assert_eq!(problems[4]["line"], Json::Null);
}

/// What the schema of SARIF 2.1.0 requires of the objects that are used, by hand.
#[test]
fn sarif_for_code_scanners() {
    let folder = Folder::with("a b.hift", WRONG);
    let said = folder.hift(&["check", "--format", "sarif", "a b.hift", "none.hift"]);
    assert_eq!((said.code, said.err.as_str()), (65, ""));
    let log: Json = serde_json::from_str(&said.out).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    assert_eq!(run["tool"]["driver"]["name"], "hift");
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    for result in results {
        let rule = &rules[result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"]);
        assert!(rule["fullDescription"]["text"].is_string(), "{rule}");
        assert!(matches!(result["level"].as_str(), Some("error" | "warning")));
        assert!(result["message"]["text"].is_string());
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().unwrap();
        assert!(matches!(uri, "a%20b.hift" | "none.hift"), "{uri}");
        if uri == "none.hift" {
            assert_eq!(place["region"], Json::Null, "there is no text to point into");
            continue;
        }
        let region = &place["region"];
        for name in ["startLine", "startColumn", "endLine", "endColumn"] {
            assert!(region[name].as_u64().unwrap() >= 1, "{name}");
        }
        let change = &result["fixes"][0]["artifactChanges"][0];
        assert_eq!(change["artifactLocation"]["uri"], "a%20b.hift");
        assert!(change["replacements"][0]["deletedRegion"]["byteLength"].is_u64());
        assert!(change["replacements"][0]["insertedContent"]["text"].is_string());
    }
}

#[test]
fn commands_for_github() {
    let folder = Folder::with("a.hift", WRONG);
    let said = folder.hift(&["check", "--format", "github", "a.hift", "none.hift"]);
    assert_eq!((said.code, said.err.as_str()), (65, ""));
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        lines[0],
        "::error file=a.hift,line=2,col=15,endLine=2,endColumn=21,title=hift%3A%3Alang%3A%3Aunknown_key::\
         `wieghts` is no key of a model block%0Ahelp: did you mean `weights`?"
    );
    assert!(
        lines[3].starts_with("::error file=none.hift,title=hift%3A%3Acli%3A%3Ano_pipeline::"),
        "{}",
        lines[3]
    );
}

#[test]
fn machines_are_told_nothing_where_nothing_is_wrong() {
    let text = "hift 1\nmodel llama { weights = random(\"config.json\") }\nexport out { model = llama  to = \"out\" }\n";
    let folder = Folder::with("a.hift", text);
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/llama-tiny/config.json");
    fs::copy(config, folder.path("config.json")).unwrap();
    let said = folder.hift(&["check", "--format", "github", "a.hift"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "", ""));
    let said = folder.hift(&["check", "--format", "json", "a.hift"]);
    let json: Json = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, json["problems"].as_array().unwrap().len()), (0, 0));
}

#[test]
fn codes_are_explained() {
    let folder = Folder::with("a.hift", WRONG);
    let list = folder.hift(&["explain"]);
    assert_eq!(list.code, 0);
    assert!(list.out.lines().count() > 90 && list.out.contains("lang::unknown_key"), "{}", list.out);
    let one = folder.hift(&["explain", "missing_unit"]);
    assert_eq!(one.code, 0);
    for text in ["hift::lang::missing_unit\n", "Before:\n", "max_length = 512 }", "After:\n", "512 tokens }"]
    {
        assert!(one.out.contains(text), "{text}: {}", one.out);
    }
    let none = folder.hift(&["explain", "missing_untit"]);
    assert_eq!(none.code, 2);
    assert!(none.err.contains("did you mean `hift explain lang::missing_unit`?"), "{}", none.err);
}
