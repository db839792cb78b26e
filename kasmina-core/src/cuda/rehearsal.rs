//! A layer's pointwise seeds on the device in one go, with all that a backward pass wants of them: for the tests and benches of
//! the streaming kernels by themselves.

use std::ops::Range;

use kasmina_sys::DeviceBuffer;

use super::backward::{Backward, BackwardReport};
use super::error::CudaError;
use super::job::{
    BackwardViews, JobList, KIND_ATTENTION_HEAD, KIND_MLP_EXPANSION, KIND_RESIDUAL, ROLE_PATH,
    ROLE_RECONSTRUCTION, ROLE_STRAIGHT_THROUGH, SeedJob, SeedResult,
};
use super::matrix::{DeviceMatMut, DeviceMatRef, side};
use super::params::{COMPUTE, NEEDS_X, RECONSTRUCTION, STRAIGHT_THROUGH, SUM_G, SUM_GX};
use super::streams::Streams;
use crate::lower::{Lowered, Program};
use crate::{Blueprint, Element, Layer, Objective, StabilityMode};

/// Jobs with their parameters, gradients and results.
#[derive(Debug)]
pub struct Rehearsal {
    host: Vec<SeedJob>,
    jobs: DeviceBuffer<SeedJob>,
    /// Keeps alive what the jobs point at.
    _parameters: DeviceBuffer<f32>,
    gradients: DeviceBuffer<f32>,
    results: DeviceBuffer<SeedResult>,
    /// Where the gradients of each job lie.
    spans: Vec<Range<usize>>,
}

/// What a seed has been given.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The seed.
    pub seed: usize,
    /// Parameter gradients, flat; `None` for a frozen seed.
    pub gradients: Option<Vec<f32>>,
    /// dL/dalpha.
    pub alpha: f32,
    /// The loss of a reconstruction.
    pub reconstruction: f64,
}

#[doc(hidden)]
impl Streams {
    /// Lowers `layer` into this one's programs and flags and makes its jobs. Gradients begin at `start`.
    ///
    /// # Errors
    /// [`CudaError::NotStreamed`] for a seed whose branch mixes columns; or the device refused.
    pub fn rehearse(&mut self, layer: &Layer, start: f32) -> Result<Rehearsal, CudaError> {
        let (plan, lifecycle, layout) = (layer.plan(), layer.lifecycle(), self.columns.layout);
        let guarded = layer.stability().mode != StabilityMode::Fast;
        let mut programs = vec![[1.0, 1.0, 0.0, 1.0]; layout.hidden()];
        let mut flags = vec![0u8; layout.hidden()];
        let (mut parameters, mut spans, mut host) = (Vec::new(), Vec::new(), Vec::new());
        for (&seed, planned) in &plan.seeds {
            let columns = layout.columns(seed);
            let (lowered, all, role) = match &planned.shadow {
                Some((lowered, Objective::Reconstruction)) => {
                    (lowered, &plan.shadow, ROLE_RECONSTRUCTION)
                }
                Some((lowered, _)) => (lowered, &plan.shadow, ROLE_STRAIGHT_THROUGH),
                None => (&planned.path, &plan.path, ROLE_PATH),
            };
            match lowered {
                Lowered::Copy => continue,
                Lowered::Pointwise => {}
                _ => return Err(CudaError::NotStreamed { seed }),
            }
            let Some(grown) = lifecycle.grown(seed) else { continue };
            let Ok(blueprint) = lifecycle.registry().get(grown.blueprint()) else { continue };
            let kind = match blueprint {
                Blueprint::Residual => KIND_RESIDUAL,
                Blueprint::AttentionHead => KIND_ATTENTION_HEAD,
                Blueprint::MlpExpansion => KIND_MLP_EXPANSION,
                _ => return Err(CudaError::NotStreamed { seed }),
            };
            let program = all.view(columns.clone());
            let reads =
                guarded || (planned.trainable && kind != KIND_RESIDUAL) || !program.is_linear();
            flags[columns.clone()].fill(match role {
                ROLE_STRAIGHT_THROUGH => STRAIGHT_THROUGH,
                ROLE_RECONSTRUCTION => RECONSTRUCTION,
                _ => {
                    let sums = match kind {
                        _ if !planned.trainable => 0,
                        KIND_RESIDUAL => SUM_G,
                        _ => SUM_GX,
                    };
                    COMPUTE | sums | if reads { NEEDS_X } else { 0 }
                }
            });
            programs[columns.clone()].iter_mut().zip(packed(program)).for_each(|(to, p)| *to = p);
            // An element between the seeds that nobody may touch.
            let begin = parameters.len();
            parameters.extend_from_slice(grown.parameters());
            spans.push(begin..parameters.len());
            parameters.push(start);
            host.push(SeedJob {
                parameters: (begin * 4) as u64,
                gradients: if planned.trainable { (begin * 4) as u64 } else { u64::MAX },
                taps: 0,
                result: (host.len() * size_of::<SeedResult>()) as u64,
                first_column: columns.start as u32,
                columns: columns.len() as u32,
                kind,
                width: 0,
                activation: 0,
                role,
                alpha: if role == ROLE_PATH { planned.alpha } else { 1.0 },
                seed: seed as u32,
            });
        }
        let stream = self.columns.stream.clone();
        self.columns.programs.copy_from_host(&programs)?;
        self.columns.flags.copy_from_host(&flags)?;
        self.columns.host_flags = flags;
        self.columns.generation += 1;
        let gradients = DeviceBuffer::from_host(&stream, &vec![start; parameters.len()])?;
        let parameters = DeviceBuffer::from_host(&stream, &parameters)?;
        let results = DeviceBuffer::<SeedResult>::zeroed(&stream, host.len())?;
        for job in &mut host {
            job.parameters += parameters.address();
            job.gradients = match job.gradients {
                u64::MAX => 0,
                offset => offset + gradients.address(),
            };
            job.result += results.address();
        }
        let jobs = DeviceBuffer::from_host(&stream, &host)?;
        Ok(Rehearsal { host, jobs, _parameters: parameters, gradients, results, spans })
    }

    /// Measures only the seeds whose byte is not 0 from now on.
    ///
    /// # Errors
    /// The copy failed.
    pub fn rehearse_watching(&mut self, watched: &[u8]) -> Result<(), CudaError> {
        self.columns.watched = Some(DeviceBuffer::from_host(&self.columns.stream, watched)?);
        Ok(())
    }

    /// A streaming backward pass over a rehearsal's jobs.
    ///
    /// # Errors
    /// A shape that does not fit, a rung that is not possible, or the driver refused.
    pub fn rehearse_backward<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        gradients: Option<(DeviceMatRef<'_, T>, &mut DeviceMatMut<'_, T>)>,
        rehearsal: &Rehearsal,
        options: &Backward,
    ) -> Result<BackwardReport, CudaError> {
        let rows = x.shape().0;
        side("the number of rows", rows)?;
        self.check_shape("x", x.shape(), rows)?;
        let gradients = gradients.as_ref().map(|(grad_y, grad_x)| (*grad_y, grad_x.as_ref()));
        let mut homes = vec![x.data().home()];
        if let Some((grad_y, grad_x)) = &gradients {
            self.check_shape("grad_y", grad_y.shape(), rows)?;
            self.check_shape("grad_x", grad_x.shape(), rows)?;
            homes.extend([grad_y.data().home(), grad_x.data().home()]);
        }
        let views = BackwardViews {
            x: x.view(),
            gradients: gradients.as_ref().map(|(grad_y, grad_x)| (grad_y.view(), grad_x.view())),
        };
        for home in &homes {
            self.columns.stream.join(home)?;
        }
        let jobs = JobList { host: &rehearsal.host, device: rehearsal.jobs.address() };
        let report = self.backward(T::DTYPE, views, jobs, options);
        for home in homes {
            home.join(&self.columns.stream)?;
        }
        report
    }
}

impl Rehearsal {
    /// What the seeds have been given so far, ascending, and whether nothing between them was touched.
    ///
    /// # Errors
    /// A pass, or the copy, failed.
    pub fn found(&self, start: f32) -> Result<(Vec<Found>, bool), CudaError> {
        let (gradients, results) = (self.gradients.to_vec()?, self.results.to_vec()?);
        let mut whole = true;
        let mut all = Vec::with_capacity(self.host.len());
        for ((job, span), result) in self.host.iter().zip(&self.spans).zip(results) {
            let frozen = job.gradients == 0;
            let used = if frozen { span.start..span.start } else { span.clone() };
            whole &= gradients[used.end..=span.end].iter().all(|v| v.to_bits() == start.to_bits());
            all.push(Found {
                seed: job.seed as usize,
                gradients: (!frozen).then(|| gradients[span.clone()].to_vec()),
                alpha: result.alpha,
                reconstruction: result.reconstruction,
            });
        }
        Ok((all, whole))
    }
}

fn packed(program: Program<'_>) -> impl Iterator<Item = [f32; 4]> + '_ {
    let factors = program.on.iter().zip(program.off);
    let rest = program.bias.iter().zip(program.polarity);
    factors.zip(rest).map(|((on, off), (bias, polarity))| [*on, *off, *bias, *polarity])
}
