//! Where the tensors of a file by `torch.save` lie: `pytorch_model.bin`.
//!
//! Since version 1.6 torch writes a zip archive that compresses nothing, so that the numbers can be mapped where they lie;
//! before, pickles one behind the other with the numbers at their end. Both hold one dictionary from names to tensors,
//! and each tensor is a view of a storage: an offset, a shape, and strides. Tied tensors share a storage.
//!
//! Source: `torch/serialization.py` (`_save`, `_legacy_save`), `torch/_utils.py` (`_rebuild_tensor_v2`).

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::FileDtype;
use super::pickle::{Id, Object, Pickle};

/// What the old form begins with.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;

/// One tensor of a file.
#[derive(Debug, PartialEq)]
pub struct Saved {
    pub name: String,
    pub dtype: FileDtype,
    pub shape: Vec<usize>,
    /// In elements. None where the numbers lie in the order of the shape.
    pub strides: Option<Vec<usize>>,
    /// From its first number to its last, in the file.
    pub range: Range<usize>,
}

/// The tensors of a file with these bytes.
///
/// # Errors
/// When it is no such file, is cut off, or a tensor reaches beyond its storage.
pub fn tensors(bytes: &[u8]) -> Result<Vec<Saved>, String> {
    match bytes {
        [b'P', b'K', 3, 4, ..] => of_archive(bytes),
        [0x80, ..] => of_pickles(bytes),
        _ => Err("it begins like neither a zip archive nor a pickle".to_owned()),
    }
}

/// Storages by their names: where they lie.
type Storages = HashMap<String, Range<usize>>;

fn of_archive(bytes: &[u8]) -> Result<Vec<Saved>, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let mut storages = Storages::new();
    for idx in 0..archive.len() {
        let entry = archive.by_index_raw(idx).map_err(|error| error.to_string())?;
        let name = entry.name().map_err(|error| error.to_string())?.into_owned();
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("its part {name} is compressed, which torch does not do"));
        }
        let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
        let size = usize::try_from(entry.size()).ok();
        let end = start.zip(size).and_then(|(start, size)| start.checked_add(size));
        let range = start.zip(end).map(|(start, end)| start..end).filter(|range| range.end <= bytes.len());
        storages.insert(name.clone(), range.ok_or_else(|| format!("its part {name} is cut off"))?);
    }
    // Everything lies in a folder that is called as the file once was.
    let pickle = storages.keys().find(|name| name.ends_with("/data.pkl") && name.matches('/').count() == 1);
    let pickle = pickle.ok_or("it has no data.pkl")?.clone();
    let folder = pickle.trim_end_matches("data.pkl");
    if storages.get(&format!("{folder}byteorder")).is_some_and(|range| &bytes[range.clone()] != b"little") {
        return Err("its numbers begin with their highest byte".to_owned());
    }
    let pickle = Pickle::read(&bytes[storages[&pickle].clone()])?;
    views(&pickle, &|storage| storages.get(&format!("{folder}data/{}", storage.key)).cloned())
}

fn of_pickles(bytes: &[u8]) -> Result<Vec<Saved>, String> {
    let mut at = 0;
    let mut next = || {
        let pickle = Pickle::read(&bytes[at..])?;
        at += pickle.len;
        Ok::<_, String>(pickle)
    };
    if *next()?.root() != Object::Number(MAGIC) {
        return Err("it is a pickle, but none of torch".to_owned());
    }
    // The version of the form, and the sizes of numbers where it was written.
    let (_, _, names, keys) = (next()?, next()?, next()?, next()?);
    let Object::List(ids) = keys.root() else { return Err("it does not list its storages".to_owned()) };
    // How large a number of each one is, its views know.
    let mut widths = HashMap::new();
    for (_, view) in named(&names)? {
        let storage = storage(&names, view[0])?;
        widths.insert(storage.key, width(storage.dtype));
    }
    let mut storages = Storages::new();
    for id in ids {
        let Object::Text(key) = keys.get(*id) else { return Err("a storage has no name".to_owned()) };
        let n = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or("it is cut off")?;
        let width = *widths.get(*key).ok_or_else(|| format!("nothing says what its storage {key} holds"))?;
        let size = usize::try_from(i64::from_le_bytes(*n)).ok().and_then(|n| n.checked_mul(width));
        let end = size.and_then(|size| size.checked_add(at + 8)).filter(|end| *end <= bytes.len());
        let range = at + 8..end.ok_or_else(|| format!("its storage {key} is cut off"))?;
        at = range.end;
        storages.insert((*key).to_owned(), range);
    }
    views(&names, &|storage| storages.get(storage.key).cloned())
}

/// What a pickle says of a storage.
struct Storage<'a> {
    key: &'a str,
    dtype: FileDtype,
}

/// The names in a pickle's dictionary, with the arguments of `_rebuild_tensor_v2`: storage, offset, shape, strides. What is
/// no tensor is left out.
fn named<'a>(pickle: &'a Pickle<'a>) -> Result<Vec<(&'a str, &'a [Id])>, String> {
    let Object::Dict(items) = pickle.root() else {
        return Err("it holds no dictionary of tensors".to_owned());
    };
    let pairs = items.chunks_exact(2).filter_map(|pair| {
        let Object::Text(name) = pickle.get(pair[0]) else { return None };
        Some((*name, arguments(pickle, pair[1])?))
    });
    Ok(pairs.collect())
}

fn arguments<'a>(pickle: &'a Pickle<'a>, tensor: Id) -> Option<&'a [Id]> {
    let mut id = tensor;
    // A parameter is a tensor within; deeper than that is nobody's.
    for _ in 0..4 {
        let Object::Call(function, arguments) = pickle.get(id) else { return None };
        let (Object::Global(module, name), Object::Tuple(arguments)) =
            (pickle.get(*function), pickle.get(*arguments))
        else {
            return None;
        };
        match (*module, *name) {
            ("torch._utils", "_rebuild_tensor_v2") => return arguments.get(..4),
            ("torch._utils", "_rebuild_parameter") => id = *arguments.first()?,
            _ => return None,
        }
    }
    None
}

fn storage<'a>(pickle: &'a Pickle<'a>, id: Id) -> Result<Storage<'a>, String> {
    let parts = match pickle.get(id) {
        Object::Outside(name) => match pickle.get(*name) {
            Object::Tuple(parts) => &parts[..],
            _ => &[],
        },
        _ => &[],
    };
    let get = |at: usize| parts.get(at).map(|id| pickle.get(*id));
    let (Some(Object::Global(_, class)), Some(Object::Text(key))) = (get(1), get(2)) else {
        return Err("a tensor has no storage".to_owned());
    };
    // Before version 0.4, storages were views of each other.
    if get(5).is_some_and(|view| *view != Object::Unknown) {
        return Err(format!("its storage {key} is a part of another"));
    }
    let dtype = match *class {
        "FloatStorage" => FileDtype::F32,
        "HalfStorage" => FileDtype::F16,
        "BFloat16Storage" => FileDtype::BF16,
        "DoubleStorage" => FileDtype::F64,
        "LongStorage" => FileDtype::I64,
        "IntStorage" => FileDtype::I32,
        "ShortStorage" => FileDtype::I16,
        "CharStorage" => FileDtype::I8,
        "ByteStorage" => FileDtype::U8,
        "BoolStorage" => FileDtype::BOOL,
        other => return Err(format!("numbers of {other} are not known")),
    };
    Ok(Storage { key, dtype })
}

/// Bytes of a number.
fn width(dtype: FileDtype) -> usize {
    dtype.bitsize() / 8
}

/// The tensors of a pickle, in storages that lie where `place` says.
fn views(
    pickle: &Pickle<'_>,
    place: &dyn Fn(&Storage<'_>) -> Option<Range<usize>>,
) -> Result<Vec<Saved>, String> {
    let mut tensors = Vec::new();
    for (name, view) in named(pickle)? {
        let storage = storage(pickle, view[0]).map_err(|what| format!("`{name}`: {what}"))?;
        let within = place(&storage).ok_or_else(|| format!("`{name}` lies in a part that is not there"))?;
        let size = |id: Id| match pickle.get(id) {
            Object::Number(n) => usize::try_from(*n).ok(),
            _ => None,
        };
        let sizes = |id: Id| match pickle.get(id) {
            Object::Tuple(ids) => ids.iter().map(|id| size(*id)).collect::<Option<Vec<usize>>>(),
            _ => None,
        };
        let (Some(offset), Some(shape), Some(strides)) = (size(view[1]), sizes(view[2]), sizes(view[3]))
        else {
            return Err(format!("`{name}` has sizes that are none"));
        };
        let beyond = || format!("`{name}` reaches beyond its storage");
        let length = reach(&shape, &strides).ok_or_else(beyond)?;
        let (start, end) = (Some(offset), offset.checked_add(length));
        let byte = |at: Option<usize>| at?.checked_mul(width(storage.dtype))?.checked_add(within.start);
        let range = byte(start).zip(byte(end)).map(|(start, end)| start..end);
        let range = range.filter(|range| range.end <= within.end).ok_or_else(beyond)?;
        let strides = (!in_order(&shape, &strides)).then_some(strides);
        tensors.push(Saved { name: name.to_owned(), dtype: storage.dtype, shape, strides, range });
    }
    match tensors.is_empty() {
        true => Err("it holds no tensor".to_owned()),
        false => Ok(tensors),
    }
}

/// How many elements lie from the first one to the last; None where that cannot be.
fn reach(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.len() != strides.len() {
        return None;
    }
    shape.iter().try_fold(1_usize, |n, size| n.checked_mul(*size))?;
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .zip(strides)
        .try_fold(1_usize, |reach, (size, stride)| reach.checked_add((size - 1).checked_mul(*stride)?))
}

/// Whether the numbers lie in the order of the shape.
fn in_order(shape: &[usize], strides: &[usize]) -> bool {
    let mut wanted = 1_usize;
    shape.iter().zip(strides).rev().all(|(size, stride)| {
        let fits = *size <= 1 || *stride == wanted;
        wanted = wanted.saturating_mul(*size);
        fits
    })
}

/// The bytes of a view, `width` a number, in the order of its shape.
pub fn gather(bytes: &[u8], shape: &[usize], strides: &[usize], width: usize) -> Vec<u8> {
    let n: usize = shape.iter().product();
    let mut gathered = Vec::with_capacity(n * width);
    let mut index = vec![0; shape.len()];
    for _ in 0..n {
        let at: usize = index.iter().zip(strides).map(|(index, stride)| index * stride).sum();
        gathered.extend_from_slice(&bytes[at * width..(at + 1) * width]);
        for (index, size) in index.iter_mut().zip(shape).rev() {
            *index += 1;
            if *index < *size {
                break;
            }
            *index = 0;
        }
    }
    gathered
}
