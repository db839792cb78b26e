//! The user's blueprint of the soak: x + w, which panics in its forward pass when it is told to.

use std::sync::atomic::{AtomicBool, Ordering};

use kasmina_core::{ParameterSpec, UserBlueprint};
use rand::RngCore;

/// What the injected panic says; the soak's hook is silent for it alone.
pub(super) const PANIC: &str = "injected by the soak";

/// x + w. The oracle takes it for a residual with scale 1.
#[derive(Debug, Default)]
pub(super) struct Shift {
    pub(super) panics: AtomicBool,
}

impl UserBlueprint for Shift {
    fn kind(&self) -> &str {
        "shift"
    }

    fn parameters(&self, c: usize) -> Vec<ParameterSpec> {
        vec![ParameterSpec::new("weight", [c])]
    }

    fn initialise(&self, _: usize, rng: &mut dyn RngCore, values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = rng.next_u32() as f32 / u32::MAX as f32 - 0.5);
    }

    fn forward(&self, c: usize, parameters: &[f32], x: &[f32], y: &mut [f32]) {
        assert!(!self.panics.load(Ordering::Relaxed), "{PANIC}");
        for (y, x) in y.chunks_mut(c).zip(x.chunks(c)) {
            for ((y, x), w) in y.iter_mut().zip(x).zip(parameters) {
                *y = x + w;
            }
        }
    }

    fn backward(
        &self,
        c: usize,
        _: &[f32],
        _: &[f32],
        g: &[f32],
        grad_x: &mut [f32],
        grad_parameters: Option<&mut [f32]>,
    ) {
        grad_x.copy_from_slice(g);
        if let Some(sums) = grad_parameters {
            for row in g.chunks(c) {
                sums.iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
            }
        }
    }

    fn flops_per_row(&self, c: usize) -> u64 {
        c as u64
    }
}

/// Keeps the injected panics off the terminal; every other one is printed as before.
pub(super) fn silence_injected_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| info.payload().downcast_ref::<&str>().copied());
        if text != Some(PANIC) {
            before(info);
        }
    }));
}
