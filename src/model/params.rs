//! Collects the parameters of a model, layer by layer, under the names that Hugging Face gives them.

use crate::program::{LayerNorm, Linear, ParamId, RmsNorm};

use super::{Init, Layer, Param};

/// The parameters so far.
pub(super) struct Params {
    pub params: Vec<Param>,
    pub layers: Vec<Layer>,
    /// The spread of fresh matrices.
    std: f32,
    /// What checkpoints of the bare trunk leave out of its names: `transformer.`
    prefix: &'static str,
}

impl Params {
    pub fn new(std: f32, prefix: &'static str) -> Self {
        Self { params: Vec::new(), layers: Vec::new(), std, prefix }
    }

    /// One tensor. A layer's tensors are added one after the other.
    pub fn add(&mut self, layer: &str, name: String, path: String, shape: Vec<usize>, init: Init) -> ParamId {
        if self.layers.last().is_none_or(|last| last.name != layer) {
            self.layers.push(Layer { name: layer.to_string(), params: Vec::new() });
        }
        let id = ParamId(self.params.len());
        let mut aliases = Vec::new();
        if let Some(bare) = name.strip_prefix(self.prefix).filter(|bare| *bare != name) {
            aliases.push(bare.to_string());
        }
        self.params.push(Param { name, aliases, path, shape, init, may_be_missing: false });
        self.layers.last_mut().expect("just pushed").params.push(id);
        id
    }

    /// A matrix or table, drawn from the normal distribution.
    pub fn matrix(&mut self, layer: &str, name: &str, path: &str, shape: [usize; 2]) -> ParamId {
        let init = Init::Normal(self.std);
        self.add(layer, name.to_string(), path.to_string(), shape.to_vec(), init)
    }

    /// A linear layer of the module `name`, whose weight is `[out, in]`.
    pub fn linear(
        &mut self,
        layer: &str,
        name: &str,
        path: &str,
        [out, inner]: [usize; 2],
        bias: bool,
    ) -> Linear {
        let weight = self.matrix(layer, &format!("{name}.weight"), path, [out, inner]);
        Linear::new(weight, bias.then(|| self.bias(layer, name, path, out)))
    }

    /// The same, held as `[in, out]`; `std` is the spread of its fresh weight.
    pub fn transposed(
        &mut self,
        layer: &str,
        name: &str,
        path: &str,
        [out, inner]: [usize; 2],
        std: f32,
    ) -> Linear {
        let shape = vec![inner, out];
        let weight = self.add(layer, format!("{name}.weight"), path.to_string(), shape, Init::Normal(std));
        let bias = Some(self.bias(layer, name, path, out));
        Linear { weight, bias, transposed: true }
    }

    fn bias(&mut self, layer: &str, name: &str, path: &str, out: usize) -> ParamId {
        self.add(layer, format!("{name}.bias"), format!("{path}.bias"), vec![out], Init::Zeros)
    }

    pub fn layer_norm(&mut self, layer: &str, name: &str, path: &str, width: usize, eps: f32) -> LayerNorm {
        let weight = self.add(layer, format!("{name}.weight"), path.to_string(), vec![width], Init::Ones);
        LayerNorm { weight, bias: self.bias(layer, name, path, width), eps }
    }

    /// With an offset of 1 the weight is what is added to one, and begins at zero.
    pub fn rms_norm(
        &mut self,
        layer: &str,
        name: &str,
        path: &str,
        width: usize,
        [eps, offset]: [f32; 2],
    ) -> RmsNorm {
        let init = if offset == 0.0 { Init::Ones } else { Init::Zeros };
        let weight = self.add(layer, format!("{name}.weight"), path.to_string(), vec![width], init);
        RmsNorm { weight, eps, offset }
    }

    /// From here on, parameters may be missing in a checkpoint: a head that has not been trained yet.
    pub fn may_be_missing(&mut self, from: usize) {
        self.params[from..].iter_mut().for_each(|param| param.may_be_missing = true);
    }

    /// Another name that a checkpoint may have for a parameter.
    pub fn alias(&mut self, param: ParamId, name: &str) {
        self.params[param.0].aliases.push(name.to_string());
    }
}
