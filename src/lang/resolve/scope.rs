//! What params and lets come to, for those who ask about one of them: an editor.

use crate::lang::load::Loaded;
use crate::lang::merge::merge;
use crate::lang::syntax::Value;
use crate::problem::Problems;

use super::Options;
use super::bindings::Bindings;
use super::calculate::{Calculator, Wanted, is_calculation};

/// The params and lets of a file with their values, as far as they are right.
pub struct Scope<'f> {
    bindings: Bindings<'f>,
    options: &'f Options,
}

impl<'f> Scope<'f> {
    pub fn new(loaded: &'f Loaded, options: &'f Options) -> Self {
        let mut problems = Problems::default();
        let given = merge(&loaded.file, &options.profiles, &mut problems).given;
        let bindings = Bindings::new(&loaded.file, &loaded.given, &given, options, &mut problems);
        Self { bindings, options }
    }

    /// The value of a param or let, calculated.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.bindings.find(name).and_then(|(_, binding)| binding.value.as_deref())
    }

    /// Whether there is a param or let of that name.
    pub fn has(&self, name: &str) -> bool {
        self.bindings.find(name).is_some()
    }

    /// What a value comes to where it is calculated; none where nothing is to be calculated, or it is wrong.
    pub fn calculate(&self, value: &Value) -> Option<Value> {
        let mut problems = Problems::default();
        let mut calculator = Calculator {
            bindings: &self.bindings,
            limit: self.bindings.len(),
            options: self.options,
            problems: &mut problems,
        };
        is_calculation(value).then(|| calculator.value(value, Wanted::Any)).flatten()
    }
}
