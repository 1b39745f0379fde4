//! What programs leave behind that is still on its way home.
//!
//! Masters and states change at the end of a step and go back to the host then. The next step does not wait for that: the
//! copies travel on while its first operations are done, and their storage is let go of where the room is wanted.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::program::Home;

use super::access::bytes;
use super::gpu::{Machine, Ticket};

/// Tensors of a device that it still copies home, the oldest first.
#[derive(Default)]
pub(super) struct Leaving {
    /// None where a processor computes: it makes its copies itself.
    pub machine: Option<Arc<dyn Machine>>,
    copies: Vec<(Home, Tensor, Ticket)>,
    /// Bytes that these and the tensors of a program may take together, if a program alone does not take more.
    pub most: u64,
}

impl Leaving {
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    pub fn bytes(&self) -> u64 {
        self.copies.iter().map(|(_, tensor, _)| bytes(tensor)).sum()
    }

    /// Another one.
    pub fn add(&mut self, home: Home, tensor: Tensor, copy: Ticket) {
        self.copies.push((home, tensor, copy));
    }

    /// Lets go of the oldest, until the rest takes no more than `room` bytes. What is launched from here on comes after
    /// their copies.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn shrink(&mut self, room: u64) -> Result<()> {
        let mut left = self.bytes();
        let gone = self.copies.iter().take_while(|(_, tensor, _)| {
            let goes = left > room;
            left -= if goes { bytes(tensor) } else { 0 };
            goes
        });
        let n = gone.count();
        let Some(machine) = &self.machine else { return Ok(()) };
        for (_, tensor, copy) in self.copies.drain(..n) {
            machine.wait(copy)?;
            drop(tensor);
        }
        Ok(())
    }

    /// Lets a fetch come after what is on its way to the same home.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn precede(&self, home: Home) -> Result<()> {
        let Some(machine) = &self.machine else { return Ok(()) };
        let here = self.copies.iter().filter(|(known, ..)| *known == home);
        here.into_iter().try_for_each(|(_, _, copy)| machine.precede(copy))
    }
}

impl Drop for Leaving {
    /// What is copied from and to stays until that is done.
    fn drop(&mut self) {
        if let Some(machine) = self.machine.as_ref().filter(|_| !self.copies.is_empty()) {
            // A device that has failed copies nothing any more.
            let _ = machine.settle();
            for (_, _, copy) in self.copies.drain(..) {
                let _ = machine.wait(copy);
            }
        }
    }
}
