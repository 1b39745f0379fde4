//! Python's pickles, read as data: what they would call is never called.
//!
//! A pickle is a program for a stack machine that builds objects and may call any function. Of the calls only those that
//! torch writes for tensors are understood here, and a result of any other is something unknown. Every object is kept
//! once and named by its place, so that neither depth nor repetition costs more than the bytes that ask for it.
//!
//! Source: `pickletools.py` of CPython; protocols 2 to 4.

use std::collections::HashMap;

/// The place of an object.
pub type Id = usize;

/// What a pickle has built.
#[derive(Debug, Clone, PartialEq)]
pub enum Object<'a> {
    Number(i128),
    Text(&'a str),
    /// A module, and a name in it.
    Global(&'a str, &'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// Keys and values in turn.
    Dict(Vec<Id>),
    /// What the writer keeps outside of the pickle, by its name.
    Outside(Id),
    /// A function and its arguments.
    Call(Id, Id),
    Unknown,
}

/// The objects of one pickle.
#[derive(Debug)]
pub struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    root: Id,
    /// The bytes that it takes.
    pub len: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle that `bytes` begin with.
    ///
    /// # Errors
    /// When it ends early or is none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut machine =
            Machine { bytes, at: 0, objects: Vec::new(), stack: Vec::new(), memo: HashMap::new() };
        let root = machine.run()?;
        Ok(Self { objects: machine.objects, root, len: machine.at })
    }

    pub fn root(&self) -> &Object<'a> {
        &self.objects[self.root]
    }

    pub fn get(&self, id: Id) -> &Object<'a> {
        &self.objects[id]
    }
}

/// A place on the stack.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Slot {
    Mark,
    Object(Id),
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object<'a>>,
    stack: Vec<Slot>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let at = self.at;
            match self.take(1)?[0] {
                // PROTO, FRAME: how what follows was written.
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'.' => return self.pop(),
                b'(' => self.stack.push(Slot::Mark),
                b'0' => drop(self.stack.pop().ok_or_else(|| self.wrong("takes from an empty stack"))?),
                b'1' => drop(self.until_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(Slot::Object(top));
                }
                b'N' => self.push(Object::Unknown),
                0x88 => self.push(Object::Number(1)),
                0x89 => self.push(Object::Number(0)),
                b'K' => self.number(1)?,
                b'M' => self.number(2)?,
                b'J' => {
                    let bytes = self.take(4)?.first_chunk::<4>().copied().unwrap_or_default();
                    self.push(Object::Number(i32::from_le_bytes(bytes).into()));
                }
                0x8a => {
                    let len = self.size(1)?;
                    let bytes = self.take(len)?;
                    self.push(long(bytes));
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Object::Unknown);
                }
                b'X' => self.text(4)?,
                0x8c => self.text(1)?,
                0x8d => self.text(8)?,
                // Bytes, and strings of Python 2: nothing of a tensor.
                b'U' | b'C' => self.skip(1)?,
                b'T' | b'B' => self.skip(4)?,
                0x8e => self.skip(8)?,
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Object::Global(module, name));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Object::Text(module), Object::Text(name)) =
                        (&self.objects[module], &self.objects[name])
                    else {
                        return Err(self.wrong("names a function by what is no text"));
                    };
                    let global = Object::Global(module, name);
                    self.push(global);
                }
                b')' => self.push(Object::Tuple(Vec::new())),
                b't' => {
                    let items = self.until_mark()?;
                    self.push(Object::Tuple(items));
                }
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b']' => self.push(Object::List(Vec::new())),
                b'l' => {
                    let items = self.until_mark()?;
                    self.push(Object::List(items));
                }
                b'}' => self.push(Object::Dict(Vec::new())),
                b'd' => {
                    let items = self.until_mark()?;
                    self.push(Object::Dict(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend(vec![item])?;
                }
                b'e' | b'u' => {
                    let items = self.until_mark()?;
                    self.extend(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.extend(vec![key, value])?;
                }
                b'q' => self.remember(1)?,
                b'r' => self.remember(4)?,
                0x94 => {
                    let (key, top) = (self.memo.len() as u64, self.top()?);
                    self.memo.insert(key, top);
                }
                b'h' => self.recall(1)?,
                b'j' => self.recall(4)?,
                b'Q' => {
                    let name = self.pop()?;
                    self.push(Object::Outside(name));
                }
                b'R' | 0x81 => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    let is_dict = self.objects[function] == Object::Global("collections", "OrderedDict");
                    self.push(if is_dict {
                        Object::Dict(Vec::new())
                    } else {
                        Object::Call(function, arguments)
                    });
                }
                // BUILD gives an object attributes; those of a dictionary are not its items.
                b'b' => drop(self.pop()?),
                other => return Err(format!("its pickle has the operation {other:#04x} at byte {at}")),
            }
        }
    }

    fn wrong(&self, what: &str) -> String {
        format!("its pickle {what} at byte {}", self.at.saturating_sub(1))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..n).ok_or_else(|| "its pickle ends early".to_owned())?;
        self.at += n;
        Ok(taken)
    }

    /// A number without sign, of up to 8 bytes.
    fn size(&mut self, width: usize) -> Result<usize, String> {
        let number =
            self.take(width)?.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).map_err(|_| self.wrong("has a size without bounds"))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let end = self.bytes[self.at..].iter().position(|byte| *byte == b'\n');
        let line = self.take(end.ok_or_else(|| "its pickle ends early".to_owned())?)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| self.wrong("has a name that is no text"))
    }

    fn push(&mut self, object: Object<'a>) {
        self.stack.push(Slot::Object(self.objects.len()));
        self.objects.push(object);
    }

    fn pop(&mut self) -> Result<Id, String> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn top(&self) -> Result<Id, String> {
        match self.stack.last() {
            Some(Slot::Object(id)) => Ok(*id),
            Some(Slot::Mark) | None => Err(self.wrong("takes what is not there")),
        }
    }

    /// The objects behind the last mark.
    fn until_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.stack.iter().rposition(|slot| *slot == Slot::Mark);
        let mark = mark.ok_or_else(|| self.wrong("has no mark"))?;
        let ids = self.stack.drain(mark..).filter_map(|slot| match slot {
            Slot::Object(id) => Some(id),
            Slot::Mark => None,
        });
        Ok(ids.collect())
    }

    fn tuple(&mut self, n: usize) -> Result<(), String> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<Id>, String>>()?;
        items.reverse();
        self.push(Object::Tuple(items));
        Ok(())
    }

    /// Adds to the list or the dictionary on top.
    fn extend(&mut self, items: Vec<Id>) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.objects[top] {
            Object::List(own) | Object::Dict(own) => own.extend(items),
            // An object of an unknown class may be filled like one.
            Object::Call(..) | Object::Unknown => {}
            Object::Number(_)
            | Object::Text(_)
            | Object::Global(..)
            | Object::Tuple(_)
            | Object::Outside(_) => {
                return Err(self.wrong("fills what is no list and no dictionary"));
            }
        }
        Ok(())
    }

    fn number(&mut self, width: usize) -> Result<(), String> {
        let number = self.size(width)?;
        self.push(Object::Number(number as i128));
        Ok(())
    }

    fn text(&mut self, width: usize) -> Result<(), String> {
        let len = self.size(width)?;
        let bytes = self.take(len)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.wrong("has a text that is none"))?;
        self.push(Object::Text(text));
        Ok(())
    }

    fn skip(&mut self, width: usize) -> Result<(), String> {
        let len = self.size(width)?;
        self.take(len)?;
        self.push(Object::Unknown);
        Ok(())
    }

    fn remember(&mut self, width: usize) -> Result<(), String> {
        let (key, top) = (self.size(width)? as u64, self.top()?);
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Result<(), String> {
        let key = self.size(width)? as u64;
        let id = *self.memo.get(&key).ok_or_else(|| self.wrong("recalls what it has not kept"))?;
        self.stack.push(Slot::Object(id));
        Ok(())
    }
}

/// A whole number with sign, lowest byte first; no tensor has one of more than 16 bytes.
fn long<'a>(bytes: &[u8]) -> Object<'a> {
    let Some(last) = bytes.last() else { return Object::Number(0) };
    if bytes.len() > 16 {
        return Object::Unknown;
    }
    let mut whole = [if last & 0x80 == 0 { 0 } else { 0xff }; 16];
    whole[..bytes.len()].copy_from_slice(bytes);
    Object::Number(i128::from_le_bytes(whole))
}
