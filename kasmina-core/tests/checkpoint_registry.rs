//! What a checkpoint looks up by name: blueprints and strategies, the user's own and those of the loading registry.

use std::sync::Arc;

use kasmina_core::checkpoint::{CheckpointError, Extensions};
use kasmina_core::graft::{GraftSignals, GraftStep, GraftStrategy, Strategy as Graft};
use kasmina_core::{
    Blueprint, Command, Germination, Layer, LayerState, ParameterSpec, Registry, SeedLayout,
    UserBlueprint,
};

#[derive(Debug)]
struct Own(&'static str);

impl UserBlueprint for Own {
    fn kind(&self) -> &str {
        self.0
    }
    fn parameters(&self, c: usize) -> Vec<ParameterSpec> {
        vec![ParameterSpec::new("w", [c])]
    }
    fn initialise(&self, _: usize, _: &mut dyn rand::RngCore, values: &mut [f32]) {
        values.fill(0.5);
    }
    fn forward(&self, _: usize, _: &[f32], x: &[f32], y: &mut [f32]) {
        y.copy_from_slice(x);
    }
    fn backward(
        &self,
        _: usize,
        _: &[f32],
        _: &[f32],
        g: &[f32],
        gx: &mut [f32],
        _: Option<&mut [f32]>,
    ) {
        gx.copy_from_slice(g);
    }
    fn flops_per_row(&self, _: usize) -> u64 {
        0
    }
}

#[derive(Debug)]
struct Late;

impl GraftStrategy for Late {
    fn name(&self) -> &str {
        "late"
    }
    fn advance(&self, signals: &GraftSignals) -> GraftStep {
        GraftStep::Share(if signals.step > 5 { 1.0 } else { 0.0 })
    }
}

#[test]
fn user_defined_things_are_found_by_name_and_missed_by_name() {
    let mut registry = Registry::builtin();
    let own = registry.register_user(Arc::new(Own("own"))).unwrap();
    let mut layer =
        Layer::builder(SeedLayout::new(4, 2).unwrap()).registry(registry.clone()).build().unwrap();
    let germination = Germination::new(own).strategy(Graft::Custom(Arc::new(Late)));
    layer.command(0, Command::Germinate(germination.clone()), "").unwrap();
    drop(layer.end_epoch());
    layer.command(1, Command::Germinate(germination), "").unwrap();
    let bytes = layer.layer_state().to_bytes().unwrap();

    let strategies: [Arc<dyn GraftStrategy>; 1] = [Arc::new(Late)];
    let late = &strategies;
    let load = |registry: &Registry, strategies| {
        LayerState::from_bytes_with(&bytes, Extensions { registry, strategies })
    };
    let state = load(&registry, late).unwrap();
    assert!(state.to_bytes().unwrap() == bytes);
    let missing = |result: Result<LayerState, CheckpointError>| match result.unwrap_err() {
        CheckpointError::NotProvided { what, name } => format!("{what} {name}"),
        other => panic!("{other}"),
    };
    assert_eq!(missing(load(&Registry::builtin(), late)), "blueprint own");
    assert_eq!(missing(load(&registry, &[])), "strategy late");
    let mut other = Registry::builtin();
    other.register("own", Blueprint::Residual).unwrap();
    assert_eq!(missing(load(&other, late)), "blueprint own");
    let mut other = Registry::empty();
    other.register("residual", Blueprint::AttentionHead).unwrap();
    other.register_user(Arc::new(Own("own"))).unwrap();
    assert!(matches!(load(&other, late), Err(CheckpointError::BlueprintMismatch { .. })));
}

#[test]
fn ids_of_the_loading_registry_stay_what_they_are() {
    let mut registry = Registry::empty();
    registry.register("a", Blueprint::Residual).unwrap();
    let b = registry.register("b", Blueprint::AttentionHead).unwrap();
    let mut layer =
        Layer::builder(SeedLayout::new(4, 2).unwrap()).registry(registry).build().unwrap();
    layer.command(1, Command::Germinate(Germination::new(b)), "").unwrap();
    drop(layer.end_epoch());
    let bytes = layer.layer_state().to_bytes().unwrap();

    let mut other = Registry::empty();
    let b = other.register("b", Blueprint::AttentionHead).unwrap();
    let state = LayerState::from_bytes(&bytes, &other).unwrap();
    assert_eq!(state.lifecycle.grown(1).unwrap().blueprint(), b);
    assert_eq!(state.lifecycle.table().blueprints()[1], b.index());
    assert_eq!(state.lifecycle.history().iter().next().unwrap().blueprint, Some(b));
    assert_eq!(state.lifecycle.verify(), Ok(()));
    assert!(state.lifecycle.registry().find("a").is_ok(), "and the file's others are added");
}
