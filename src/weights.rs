//! The tensors of a Hugging Face directory, memory-mapped: one `model.safetensors`, or shards with an index; where there are
//! none, what older versions of transformers wrote, one `pytorch_model.bin` or its shards.
//!
//! Reading order: [`torch`] (where the tensors of a `.bin` lie), [`pickle`] (how it names them).

mod pickle;
mod torch;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::SafeTensors;
use serde_json::Value as Json;

use crate::model::{Model, Param};
use crate::problem::{Fault, Problem, Problems};

pub use safetensors::Dtype as FileDtype;

pub const SINGLE: &str = "model.safetensors";
pub const INDEX: &str = "model.safetensors.index.json";
pub const OLD_SINGLE: &str = "pytorch_model.bin";
pub const OLD_INDEX: &str = "pytorch_model.bin.index.json";

/// The files that a directory's weights begin with, and whether that file is an index. The first that is there holds.
const BEGINNINGS: [(&str, bool); 4] =
    [(INDEX, true), (SINGLE, false), (OLD_INDEX, true), (OLD_SINGLE, false)];

/// Which of a directory's files its weights begin with.
pub fn beginning<'a>(has: impl Fn(&str) -> bool) -> Option<&'a str> {
    BEGINNINGS.into_iter().map(|(name, _)| name).find(|name| has(name))
}

/// Whether a file is an index of shards.
pub fn is_index(name: &str) -> bool {
    BEGINNINGS.contains(&(name, true))
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub dtype: FileDtype,
    pub shape: Vec<usize>,
    /// In elements; None where the numbers lie in the order of the shape.
    strides: Option<Vec<usize>>,
    file: usize,
    range: Range<usize>,
}

/// An open directory of weights. Only headers have been read.
#[derive(Debug)]
pub struct Directory {
    pub files: Vec<PathBuf>,
    maps: Vec<Mmap>,
    tensors: BTreeMap<String, Entry>,
}

impl Directory {
    /// Opens the weights in `folder`; None if there are none (a `config.json` alone is enough to plan).
    ///
    /// # Errors
    /// When a file cannot be read, is truncated, or the index names a file that is not there.
    pub fn open(folder: &Path) -> Result<Option<Self>, Problem> {
        let Some(beginning) = beginning(|name| folder.join(name).exists()) else { return Ok(None) };
        let names = match is_index(beginning) {
            true => shards(&folder.join(beginning))?,
            false => vec![beginning.to_string()],
        };
        let mut directory = Self { files: Vec::new(), maps: Vec::new(), tensors: BTreeMap::new() };
        for name in names {
            directory.add(folder.join(name))?;
        }
        Ok(Some(directory))
    }

    /// Opens the weights in `folder`, which must have some.
    ///
    /// # Errors
    /// As [`Directory::open`], and when there are none.
    pub fn require(folder: &Path) -> Result<Self, Problem> {
        Self::open(folder)?.ok_or_else(|| {
            Problem::of(
                Fault::Missing,
                "hift::weights::none",
                format!("{} holds no model.safetensors and no pytorch_model.bin", folder.display()),
            )
            .help("put the weights beside config.json, or start fresh: `weights = random(\"config.json\")`")
        })
    }

    fn add(&mut self, path: PathBuf) -> Result<(), Problem> {
        let unreadable = |error: std::io::Error| {
            Problem::of(
                Fault::Missing,
                "hift::weights::unreadable",
                format!("{} cannot be read: {error}", path.display()),
            )
            .help("check that the download is complete and that the file may be read")
        };
        let file = File::open(&path).map_err(unreadable)?;
        #[allow(
            unsafe_code,
            reason = "a memory map; weights are read, and a run says so if they change under it"
        )]
        let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
        if path.extension().is_some_and(|extension| extension == "bin") {
            let tensors = torch::tensors(&map).map_err(|what| {
                Problem::new("hift::weights::broken", format!("{} is not read: {what}", path.display()))
                    .help(format!("the file has {} bytes; download it again, or take safetensors", map.len()))
            })?;
            for torch::Saved { name, dtype, shape, strides, range } in tensors {
                self.tensors.insert(name, Entry { dtype, shape, strides, file: self.maps.len(), range });
            }
            self.files.push(path);
            self.maps.push(map);
            return Ok(());
        }
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| {
            Problem::new(
                "hift::weights::broken",
                format!("{} is not a whole safetensors file: {error}", path.display()),
            )
            .help(format!("the file has {} bytes; download it again", map.len()))
        })?;
        // Offsets count from the end of the header, which begins with its own length in 8 bytes.
        let base = header + 8;
        for (name, info) in metadata.tensors() {
            let entry = Entry {
                dtype: info.dtype,
                shape: info.shape.clone(),
                strides: None,
                file: self.maps.len(),
                range: base + info.data_offsets.0..base + info.data_offsets.1,
            };
            self.tensors.insert(name, entry);
        }
        self.files.push(path);
        self.maps.push(map);
        Ok(())
    }

    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// A parameter's tensor, under its name or another that it may have.
    pub fn of(&self, param: &Param) -> Option<&Entry> {
        let names = [&param.name].into_iter().chain(&param.aliases);
        names.filter_map(|name| self.tensors.get(name)).next()
    }

    /// The numbers of a tensor, in the order of its shape.
    pub fn bytes(&self, entry: &Entry) -> Cow<'_, [u8]> {
        let bytes = &self.maps[entry.file][entry.range.clone()];
        match &entry.strides {
            None => Cow::Borrowed(bytes),
            Some(strides) => {
                Cow::Owned(torch::gather(bytes, &entry.shape, strides, entry.dtype.bitsize() / 8))
            }
        }
    }

    /// The tensors that the checkpoint leaves out, as it may: they are drawn.
    pub fn left_out<'m>(&self, model: &'m Model) -> Vec<&'m str> {
        let missing = model.params.iter().filter(|param| param.may_be_missing && self.of(param).is_none());
        missing.map(|param| param.name.as_str()).collect()
    }

    /// Holds the headers against what the model needs.
    pub fn check(&self, model: &Model) -> Problems {
        let mut problems = Problems::default();
        for param in &model.params {
            let Some(entry) = self.of(param) else {
                if param.may_be_missing {
                    continue;
                }
                problems.push(
                    Problem::new(
                        "hift::weights::missing_tensor",
                        format!("the weights have no tensor `{}`", param.name),
                    )
                    .help("config.json and weights do not belong together, or a shard is missing"),
                );
                continue;
            };
            if entry.shape != param.shape {
                problems.push(
                    Problem::new(
                        "hift::weights::wrong_shape",
                        format!(
                            "`{}` has shape {:?}, but config.json asks for {:?}",
                            param.name, entry.shape, param.shape
                        ),
                    )
                    .help("take config.json and weights from the same place"),
                );
            }
            match entry.dtype {
                FileDtype::F32 | FileDtype::F16 | FileDtype::BF16 => {}
                other => problems.push(
                    Problem::new("hift::weights::dtype", format!("`{}` is stored as {other:?}", param.name))
                        .help("float32, float16 and bfloat16 weights can be trained; convert the checkpoint first"),
                ),
            }
        }
        // One wrong file gives one message, not hundreds.
        if problems.0.len() > 3 {
            let more = problems.0.len() - 3;
            problems.0.truncate(3);
            problems.0[2].help =
                Some(format!("and {more} more tensors: config.json and weights do not belong together"));
        }
        problems
    }
}

/// The files that the weights in `folder` lie in, the index among them. Where there are none, or the index cannot be
/// read, the one that would have to be there.
pub fn names(folder: &Path) -> Vec<String> {
    let beginning = beginning(|name| folder.join(name).exists()).unwrap_or(SINGLE);
    let shards = match is_index(beginning) {
        true => shards(&folder.join(beginning)).unwrap_or_default(),
        false => Vec::new(),
    };
    [beginning.to_string()].into_iter().chain(shards).collect()
}

/// The files that an index names, each once.
fn shards(index: &Path) -> Result<Vec<String>, Problem> {
    let broken = |what: String| {
        Problem::new("hift::weights::broken", format!("{} {what}", index.display())).help("download it again")
    };
    let text = std::fs::read_to_string(index).map_err(|error| broken(format!("cannot be read: {error}")))?;
    let json: Json = serde_json::from_str(&text).map_err(|error| broken(format!("is not JSON: {error}")))?;
    let map = json
        .get("weight_map")
        .and_then(Json::as_object)
        .ok_or_else(|| broken("has no `weight_map`".into()))?;
    let mut names: Vec<String> = map.values().filter_map(Json::as_str).map(str::to_string).collect();
    names.sort();
    names.dedup();
    let folder = index.parent().unwrap_or(Path::new("."));
    if let Some(missing) = names.iter().find(|name| !folder.join(name).exists()) {
        return Err(Problem::of(
            Fault::Missing,
            "hift::weights::missing_shard",
            format!("{} names {missing}, which is not there", index.display()),
        )
        .help("download the missing shard"));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{TensorView, serialize_to_file};

    use super::*;

    /// The first complaint about a checkpoint whose matrix `[vocab, hidden]` has these names.
    fn check(tied: bool, names: &[&str], complaint: Option<&str>) {
        let config = format!(
            r#"{{"model_type": "llama", "hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1,
                "num_attention_heads": 1, "vocab_size": 3, "tie_word_embeddings": {tied}}}"#
        );
        let model = Model::from_config(&config).unwrap();
        let others = model.params.iter().filter(|param| param.shape != [3, 2]);
        let tensors = others
            .map(|param| (param.name.as_str(), param.shape.clone()))
            .chain(names.iter().map(|name| (*name, vec![3, 2])))
            .map(|(name, shape)| {
                (name, TensorView::new(FileDtype::F32, shape.clone(), bytes(&shape)).unwrap())
            });
        let folder = tempfile::tempdir().unwrap();
        serialize_to_file(tensors, None, &folder.path().join(SINGLE)).unwrap();
        let problems = Directory::open(folder.path()).unwrap().unwrap().check(&model);
        assert_eq!(
            problems.0.first().map(|problem| problem.message.as_str()),
            complaint,
            "{tied}, {names:?}"
        );
    }

    #[test]
    fn a_classifier_s_head_may_be_missing_and_a_bare_trunk_s_names_are_shorter() {
        let model = Model::from_config(
            r#"{"model_type": "bert", "hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1,
                "num_attention_heads": 1, "vocab_size": 3, "max_position_embeddings": 4}"#,
        )
        .unwrap();
        let check = |keep: &dyn Fn(&str) -> bool,
                     rename: &dyn Fn(&str) -> String,
                     complaint: Option<&str>| {
            let kept = model.params.iter().filter(|param| keep(&param.name));
            let tensors = kept.map(|param| {
                let bytes = bytes(&param.shape);
                let view = TensorView::new(FileDtype::F32, param.shape.clone(), bytes).unwrap();
                (rename(&param.name), view)
            });
            let folder = tempfile::tempdir().unwrap();
            serialize_to_file(tensors, None, &folder.path().join(SINGLE)).unwrap();
            let directory = Directory::open(folder.path()).unwrap().unwrap();
            let problems = directory.check(&model);
            assert_eq!(problems.0.first().map(|problem| problem.message.as_str()), complaint);
            let drawn = model.params.iter().map(|param| param.name.as_str());
            let drawn: Vec<&str> = drawn.filter(|name| !keep(name) && !name.contains("position")).collect();
            assert_eq!(directory.left_out(&model), drawn);
        };
        let same = |name: &str| name.to_string();
        let bare = |name: &str| name.trim_start_matches("bert.").to_string();
        let old = |name: &str| {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        };
        check(&|_| true, &same, None);
        check(&|name| !name.starts_with("classifier"), &same, None);
        check(&|name| !name.contains("pooler"), &same, None);
        check(&|name| !name.starts_with("classifier"), &bare, None);
        check(&|_| true, &old, None);
        check(&|_| true, &|name| bare(&old(name)), None);
        check(
            &|name| !name.contains("position"),
            &same,
            Some("the weights have no tensor `bert.embeddings.position_embeddings.weight`"),
        );
    }

    fn bytes(shape: &[usize]) -> &'static [u8] {
        &[0; 64][..4 * shape.iter().product::<usize>()]
    }

    #[test]
    fn of_tied_matrices_a_checkpoint_may_keep_either() {
        let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
        check(true, &[embedding], None);
        check(true, &[head], None);
        check(true, &[embedding, head], None);
        check(true, &[], Some("the weights have no tensor `model.embed_tokens.weight`"));
        check(false, &[embedding, head], None);
        check(false, &[head], Some("the weights have no tensor `model.embed_tokens.weight`"));
        check(false, &[embedding], Some("the weights have no tensor `lm_head.weight`"));
    }
}
