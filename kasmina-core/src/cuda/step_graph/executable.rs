//! One instantiated graph: where each layer's launches stand in it, and how it follows when they change.

use kasmina_sys::{Chain, Context, Link};

use crate::cuda::error::CudaError;
use crate::cuda::job::View;
use crate::cuda::layer::{Reports, Stamp};
use crate::cuda::tape::{Phase, Piece, Placed};
use crate::{AdamW, DType};

use super::report::{Instantiation, StepGraphReport};

/// What a graph is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) phases: [bool; 3],
    /// The layers' ids, and whether each is measured.
    pub(super) layers: Vec<(u64, bool)>,
}

/// What a layer's launches were written down for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Written {
    pub(super) stamp: Stamp,
    pub(super) dtype: DType,
    /// x, y, dL/dy and dL/dx.
    pub(super) views: [Option<View>; 4],
}

/// One layer's launches.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// `None` until they were written down.
    pub(super) written: Option<Written>,
    pub(super) optimizer: Option<AdamW>,
    pub(super) links: Vec<Placed>,
    /// Where they may come to be in time, with what stands there until then.
    pub(super) room: Vec<Placed>,
    pub(super) reports: Reports,
    /// Whether the graph does not have them yet.
    pub(super) is_new: bool,
}

/// A place in the graph. The order is that of the step: forward from the first layer to the last, backward the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    phase: Phase,
    rank: usize,
    piece: Piece,
}

impl Slot {
    fn new((phase, piece): (Phase, Piece), layer: usize, layers: usize) -> Self {
        let rank = if phase == Phase::Backward { layers - 1 - layer } else { layer };
        Self { phase, rank, piece }
    }

    fn layer(&self, layers: usize) -> usize {
        if self.phase == Phase::Backward { layers - 1 - self.rank } else { self.rank }
    }
}

/// How graphs are put together.
#[derive(Clone, Debug)]
pub(super) struct Make<'a> {
    pub(super) context: &'a Context,
    /// Whether there is no room for what does not run.
    pub(super) exact: bool,
    pub(super) programmatic: bool,
}

/// What a change came to.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Launches that were exchanged or skipped.
    pub(super) changed: u64,
    /// Why it was made anew.
    pub(super) made: Option<Instantiation>,
}

#[derive(Debug)]
pub(super) struct Executable {
    pub(super) key: Key,
    pub(super) parts: Vec<Part>,
    slots: Vec<Slot>,
    /// `None` before it is made, and where there is nothing to run.
    pub(super) chain: Option<Chain>,
    /// The one before it, which may still run.
    before: Option<Chain>,
    is_made: bool,
    /// Links, and how many of them are skipped.
    pub(super) counts: (usize, usize),
}

impl Executable {
    pub(super) fn new(key: Key) -> Self {
        let parts = key.layers.iter().map(|_| Part::default()).collect();
        Self {
            key,
            parts,
            slots: Vec::new(),
            chain: None,
            before: None,
            is_made: false,
            counts: (0, 0),
        }
    }

    /// Brings the graph to the layers' launches as they are written down now.
    ///
    /// # Errors
    /// The driver refused to make a graph; this is to be dropped then.
    pub(super) fn follow(&mut self, make: &Make<'_>) -> Result<Followed, CudaError> {
        let mut followed = Followed::default();
        if self.is_made && !self.parts.iter().any(|part| part.is_new) {
            return Ok(followed);
        }
        let reason = match self.misfit(make.exact) {
            Some(reason) => Some(reason),
            None => match self.exchange(&mut followed) {
                Ok(()) => None,
                Err(error) if error.is_sticky() => return Err(error),
                Err(error) => Some(Instantiation::Refused { reason: error.to_string() }),
            },
        };
        if let Some(reason) = reason {
            self.before = self.chain.take();
            self.make(make)?;
            followed.made = Some(reason);
            followed.changed = 0;
        }
        self.parts.iter_mut().for_each(|part| part.is_new = false);
        self.counts = self.count();
        Ok(followed)
    }

    /// Why the launches do not fit the places that there are.
    fn misfit(&self, exact: bool) -> Option<Instantiation> {
        if !self.is_made {
            return Some(Instantiation::First);
        }
        let layers = self.parts.len();
        for (layer, part) in self.parts.iter().enumerate().filter(|(_, part)| part.is_new) {
            for (place, _) in &part.links {
                if self.slots.binary_search(&Slot::new(*place, layer, layers)).is_err() {
                    let piece = format!("{:?} ({:?})", place.1, place.0);
                    return Some(Instantiation::NoPlace { layer, piece });
                }
            }
            let places = self.slots.iter().filter(|slot| slot.layer(layers) == layer).count();
            if exact && places != part.links.len() {
                return Some(Instantiation::NotRun { layer });
            }
        }
        None
    }

    /// Puts every launch in its place, and skips the places without one.
    fn exchange(&mut self, followed: &mut Followed) -> Result<(), CudaError> {
        let Some(chain) = &mut self.chain else { return Ok(()) };
        let layers = self.parts.len();
        for (at, slot) in self.slots.iter().enumerate() {
            let Some(part) = self.parts.get(slot.layer(layers)).filter(|part| part.is_new) else {
                continue;
            };
            let place = (slot.phase, slot.piece);
            let wanted = part.links.binary_search_by_key(&place, |(place, _)| *place);
            let mut changed = false;
            if let Some((_, link)) = wanted.ok().and_then(|i| part.links.get(i)) {
                changed |= chain.set(at, link)?;
            }
            changed |= chain.enable(at, wanted.is_ok())?;
            followed.changed += u64::from(changed);
        }
        Ok(())
    }

    fn make(&mut self, make: &Make<'_>) -> Result<(), CudaError> {
        let layers = self.parts.len();
        let mut links: Vec<(Slot, &Link, bool)> = Vec::new();
        for (layer, part) in self.parts.iter().enumerate() {
            let slot = |place: &(Phase, Piece)| Slot::new(*place, layer, layers);
            links.extend(part.links.iter().map(|(place, link)| (slot(place), link, true)));
            if make.exact {
                continue;
            }
            let is_free =
                |place: &(Phase, Piece)| !part.links.iter().any(|(taken, _)| taken == place);
            let room = part.room.iter().filter(|(place, _)| is_free(place));
            links.extend(room.map(|(place, link)| (slot(place), link, false)));
        }
        links.sort_by_key(|(slot, ..)| *slot);
        self.slots = links.iter().map(|(slot, ..)| *slot).collect();
        self.is_made = true;
        if links.is_empty() {
            return Ok(());
        }
        let all = links.iter().map(|(_, link, _)| (*link).clone()).collect();
        let mut chain = Chain::new(make.context, all, make.programmatic)?;
        for (at, (.., enabled)) in links.iter().enumerate() {
            chain.enable(at, *enabled)?;
        }
        self.chain = Some(chain);
        Ok(())
    }

    /// The graph that this one took the place of.
    pub(super) fn take_before(&mut self) -> Option<Chain> {
        self.before.take()
    }

    fn count(&self) -> (usize, usize) {
        let chain = self.chain.as_ref();
        let links = chain.map_or(0, Chain::len);
        let enabled =
            |at| chain.and_then(|chain| chain.link(at)).is_some_and(|(_, enabled)| enabled);
        (links, (0..links).filter(|at| !enabled(*at)).count())
    }
}

impl Followed {
    pub(super) fn tell(&self, report: &mut StepGraphReport) {
        report.links_changed += self.changed;
        report.updates_in_place += u64::from(self.changed > 0);
        report.instantiations += u64::from(self.made.is_some());
        if let Some(reason) = &self.made {
            report.last_instantiation = Some(reason.clone());
        }
    }
}
