//! Optimizers, the lifecycle, and whose values count.

use candle_core::{Device, Module, Tensor, Var};
use candle_nn::{AdamW, Linear, Optimizer, ParamsAdamW};
use kasmina_core::candle::KasminaCudaLayer;
use kasmina_core::graft::Strategy;
use kasmina_core::{Command, ForwardOptions, Germination, Layer, Objective, SeedLayout};
use kasmina_gpu_test::{Body, Failed, ensure};

use crate::common::{There, close, flat, layer, same, training, values};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("candle_adamw_trains_a_bottleneck_between_linear_layers", adamw_trains_a_bottleneck),
    ("candle_a_training_run_is_the_cpus", a_training_run_is_the_cpus),
    ("candle_the_gradient_norm_is_there_when_asked_for", the_gradient_norm_is_there),
    ("candle_a_seed_that_germinates_anew_has_new_variables", anew_is_another),
    ("candle_what_the_layer_changes_reaches_the_variables", the_layers_changes_reach_variables),
];

const RAMP: Strategy = Strategy::FixedRamp { steps: 2 };

fn adam(vars: Vec<Var>) -> Result<AdamW, Failed> {
    let settings = ParamsAdamW { lr: 1e-2, weight_decay: 0.0, ..ParamsAdamW::default() };
    Ok(AdamW::new(vars, settings)?)
}

fn number(loss: &Tensor) -> Result<f32, Failed> {
    Ok(loss.to_scalar::<f32>()?)
}

/// A linear layer before and one after, in a `Sequential` with the module between.
struct Network {
    before: Var,
    after: Var,
    x: Tensor,
    target: Tensor,
}

impl Network {
    fn new(device: &Device) -> Result<Self, Failed> {
        let var = |shape: (usize, usize), phase| {
            Var::from_vec(values(shape.0 * shape.1, phase), shape, device)
        };
        Ok(Self {
            before: var((8, 6), 0.2)?,
            after: var((3, 8), 0.9)?,
            x: Tensor::from_vec(values(32 * 6, 0.5), (32, 6), device)?,
            target: Tensor::from_vec(values(32 * 3, 2.5), (32, 3), device)?,
        })
    }

    fn loss(&self, module: impl Module + 'static) -> Result<Tensor, Failed> {
        let linear = |weight: &Var| Linear::new(weight.as_tensor().clone(), None);
        let network =
            candle_nn::seq().add(linear(&self.before)).add(module).add(linear(&self.after));
        Ok((network.forward(&self.x)? - &self.target)?.sqr()?.mean_all()?)
    }
}

fn adamw_trains_a_bottleneck(device: kasmina_sys::Device) -> Result<(), Failed> {
    for there in There::both(device)? {
        let network = Network::new(&there.device)?;
        let module = there.module(&training(Objective::Probe, RAMP)?)?;
        let vars = module.vars()?;
        let mut optimizer = adam(vars.clone())?;
        let probe = module.with_options(ForwardOptions::new().probe(1, 1.0));
        let served = number(&network.loss(module.clone())?)?;
        let first = number(&network.loss(probe.clone())?)?;
        for _ in 0..60 {
            let grads = network.loss(probe.clone())?.backward()?;
            let both = [&network.before, &network.after].map(|var| grads.get(var).is_some());
            ensure(both == [true; 2], || "the linear layers have no gradients".into())?;
            optimizer.step(&grads)?;
            module.advance_step()?;
        }
        let last = number(&network.loss(probe.clone())?)?;
        ensure(last < 0.7 * first, || format!("{last} from {first}"))?;
        let still = number(&network.loss(module.clone())?)?;
        ensure(still == served, || format!("what is served was {served} and is {still}"))?;

        // Through a graft the variables stay the same, and the last step is not lost on the way.
        let before: Vec<_> = vars.iter().map(|v| flat(v)).collect::<Result<_, _>>()?;
        {
            let mut layer = module.layer()?;
            layer.command(1, Command::Graft, "test")?;
            layer.end_epoch()?;
            let grown = layer.lifecycle().grown(1).ok_or("no seed")?;
            same("the layer after the boundary", grown.parameters(), &before.concat(), false)?;
            ensure(grown.parameters().iter().any(|p| *p != 0.0), || "all zeros".into())?;
        }
        let grafting = module.vars()?;
        ensure(grafting.iter().zip(&vars).all(|(a, b)| a.id() == b.id()), || "others".into())?;
        let after: Vec<_> = grafting.iter().map(|v| flat(v)).collect::<Result<_, _>>()?;
        same("variables after the boundary", &after.concat(), &before.concat(), false)?;
        // Stabilization freezes them: no variables for an optimizer, and no gradient for them.
        module.advance_step()?;
        module.advance_step()?;
        {
            let mut layer = module.layer()?;
            layer.command(1, Command::Stabilize, "test")?;
            layer.end_epoch()?;
        }
        let counts = (module.vars()?.len(), module.named_vars()?.len());
        ensure(counts == (0, 4), || format!("{counts:?}"))?;
        let grads = network.loss(module.clone())?.backward()?;
        ensure(vars.iter().all(|var| grads.get(var).is_none()), || "frozen".into())?;
        ensure(grads.get(&network.before).is_some(), || "nothing before the layer".into())?;
    }
    Ok(())
}

/// Twenty steps of the same training on both devices.
fn a_training_run_is_the_cpus(device: kasmina_sys::Device) -> Result<(), Failed> {
    let there = There::new(device)?;
    for objective in [Objective::StraightThrough, Objective::Reconstruction] {
        let here = kasmina_core::candle::KasminaLayer::new(training(objective, RAMP)?);
        let on = there.module(&training(objective, RAMP)?)?;
        let start = |vars: Vec<Var>| -> Result<AdamW, Failed> {
            // Away from the identity, so that there is something to learn.
            vars[2].set(&(vars[2].ones_like()? * 0.1)?)?;
            adam(vars)
        };
        let mut optimizers = [start(here.vars()?)?, start(on.vars()?)?];
        let networks = [Network::new(&Device::Cpu)?, Network::new(&there.device)?];
        for _ in 0..20 {
            optimizers[0].backward_step(&networks[0].loss(here.clone())?)?;
            here.layer().advance_step();
            optimizers[1].backward_step(&networks[1].loss(on.clone())?)?;
            on.advance_step()?;
        }
        let _ = here.layer().end_epoch();
        on.layer()?.end_epoch()?;
        for ((name, a), (_, b)) in on.named_vars()?.iter().zip(&here.named_vars()?) {
            close(name, &flat(a)?, &flat(b)?, 1e-2)?;
        }
        let losses = (on.layer()?.reconstruction_loss(1), here.layer().reconstruction_loss(1));
        match losses {
            (Some(a), Some(b)) => ensure((a - b).abs() < 1e-3 * b, || format!("{a} and {b}"))?,
            (None, None) => {}
            _ => return Err(format!("{losses:?}").into()),
        }
        let updated = [
            on.layer()?.lifecycle().table().get(1).map(|row| row.last_update_epoch),
            here.layer().lifecycle().table().get(1).map(|row| row.last_update_epoch),
        ];
        ensure(updated[0].is_some() && updated[0] == updated[1], || format!("{updated:?}"))?;
    }
    Ok(())
}

fn the_gradient_norm_is_there(device: kasmina_sys::Device) -> Result<(), Failed> {
    let there = There::new(device)?;
    // A ramp that never moves unless the norm is measured.
    let strategy = Strategy::GradNormGated { steps: 1, low: 0.0, high: f64::MAX };
    let mut layer = training(Objective::StraightThrough, strategy)?;
    layer.command(1, Command::Graft, "test")?;
    let _ = layer.end_epoch();
    let module = there.module(&layer)?;
    module.advance_step()?;
    let alpha = module.layer()?.alpha(1)?;
    ensure(alpha == 0.0, || format!("{alpha} before the pass"))?;
    let x = Tensor::from_vec(values(16, 0.5), (2, 8), &there.device)?;
    let options = ForwardOptions::new().probe(1, 1.0);
    module.forward_with(&x, &options)?.sum_all()?.backward()?;
    module.advance_step()?;
    let alpha = module.layer()?.alpha(1)?;
    ensure(alpha == 1.0, || format!("{alpha} after it"))
}

fn anew_is_another(device: kasmina_sys::Device) -> Result<(), Failed> {
    let there = There::new(device)?;
    let module = there.module(&training(Objective::StraightThrough, RAMP)?)?;
    let old = module.vars()?;
    {
        let mut layer = module.layer()?;
        let bottleneck = layer.registry().find("bottleneck")?;
        let again = Command::Germinate(Germination::new(bottleneck));
        for command in [Command::Cancel, Command::Reset, again, Command::Promote] {
            layer.command(1, command, "test")?;
            layer.end_epoch()?;
        }
    }
    let new = module.vars()?;
    ensure(new.len() == old.len(), || format!("{} variables", new.len()))?;
    ensure(new.iter().zip(&old).all(|(a, b)| a.id() != b.id()), || "the old ones".into())?;
    let layer = module.layer()?;
    let grown = layer.lifecycle().grown(1).ok_or("no seed")?;
    let values: Vec<_> = new.iter().map(|v| flat(v)).collect::<Result<_, _>>()?;
    same("new variables", &values.concat(), grown.parameters(), false)
}

fn the_layers_changes_reach_variables(device: kasmina_sys::Device) -> Result<(), Failed> {
    let there = There::new(device)?;
    let module = there.module(&layer()?)?;
    let var = |name: &str| -> Result<Var, Failed> {
        let all = module.named_vars()?;
        Ok(all.into_iter().find(|(n, _)| n == name).ok_or("no such variable")?.1)
    };
    let weight = var("seed4.weight")?;
    let set = |module: &KasminaCudaLayer, value: f32| -> Result<(), Failed> {
        Ok(module.layer()?.set_parameters(4, &[value; 4])?)
    };
    set(&module, 0.25)?;
    same("set in the layer", &flat(var("seed4.weight")?.as_tensor())?, &[0.25; 4], false)?;
    ensure(var("seed4.weight")?.id() == weight.id(), || "another variable".into())?;
    // Then the variable moves on, and the layer with it.
    weight.set(&(weight.ones_like()? * 0.5)?)?;
    {
        let mut layer = module.layer()?;
        layer.synchronize()?;
        let grown = layer.lifecycle().grown(4).ok_or("no seed")?;
        same("set in the variable", grown.parameters(), &[0.5; 4], false)?;
    }
    // A frozen seed's variable is a copy.
    let kept = var("seed2.weight")?;
    let x = there.tensor(3, 0.1)?;
    let (before, good) = (flat(&kept)?, flat(&module.forward(&x)?)?);
    kept.set(&(kept.ones_like()? * 9.0)?)?;
    same("y", &flat(&module.forward(&x)?)?, &good, false)?;
    module.reload_vars()?;
    same("reloaded", &flat(&kept)?, &before, false)?;
    // Another layer in the place of the first.
    module.layer()?.replace(&layer()?)?;
    let fresh = there.module(&layer()?)?;
    for ((name, a), (_, b)) in module.named_vars()?.iter().zip(&fresh.named_vars()?) {
        same(name, &flat(a)?, &flat(b)?, false)?;
    }
    let last = module.last_synchronized();
    ensure(last.lifecycle().grown_seeds().len() == 4, || "the last state is another".into())?;
    let small = Layer::builder(SeedLayout::new(8, 4)?).build()?;
    ensure(module.layer()?.replace(&small).is_err(), || "another layout".into())
}
