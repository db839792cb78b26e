//! The registry: blueprints by name.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Blueprint, UserBlueprint};
use crate::{Activation, Error, Result};

/// A blueprint's place in a [`Registry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlueprintId(pub(crate) u16);

impl BlueprintId {
    /// The code of "no blueprint" in tables and reports.
    pub const NONE: u16 = u16::MAX;

    /// The id as a number.
    pub fn index(self) -> u16 {
        self.0
    }
}

/// Blueprints by name, in the order of registration.
///
/// ```
/// use kasmina_core::{Activation, Blueprint, Registry};
/// let mut registry = Registry::builtin();
/// let id = registry.register("wide", Blueprint::Bottleneck { width: 64, activation: Activation::Silu })?;
/// assert_eq!(registry.find("wide")?, id);
/// assert!(registry.find("wider").is_err());
/// # Ok::<(), kasmina_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Registry {
    entries: Vec<(String, Blueprint)>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Registry {
    /// A registry without entries.
    pub fn empty() -> Self {
        Self { entries: Vec::new() }
    }

    /// All six kinds under their own names: a filter of 3 taps, a bottleneck of width 32 and a dense
    /// branch, both with gelu.
    pub fn builtin() -> Self {
        let activation = Activation::Gelu;
        let entries = [
            Blueprint::Residual,
            Blueprint::AttentionHead,
            Blueprint::MlpExpansion,
            Blueprint::ConvFilter { taps: 3 },
            Blueprint::Bottleneck { width: 32, activation },
            Blueprint::Dense { activation },
        ];
        Self { entries: entries.map(|b| (b.kind().to_owned(), b)).into() }
    }

    /// Adds a blueprint under a name. Registering the same definition twice is harmless.
    ///
    /// # Errors
    /// [`Error::DuplicateBlueprint`] for another definition under a known name, the errors of
    /// [`Blueprint::validate`], and [`Error::TooLarge`] past 65,535 entries.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        blueprint: Blueprint,
    ) -> Result<BlueprintId> {
        let name = name.into();
        blueprint.validate()?;
        if let Some(index) = self.entries.iter().position(|(known, _)| *known == name) {
            return if self.entries[index].1 == blueprint {
                Ok(BlueprintId(index as u16))
            } else {
                Err(Error::DuplicateBlueprint { name })
            };
        }
        let limit = usize::from(BlueprintId::NONE);
        if self.entries.len() >= limit {
            return Err(Error::TooLarge {
                what: "registered blueprints",
                value: self.entries.len() as u64 + 1,
                limit: limit as u64,
            });
        }
        self.entries.push((name, blueprint));
        Ok(BlueprintId((self.entries.len() - 1) as u16))
    }

    /// Adds a user-defined kind under the name it gives itself.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub fn register_user(&mut self, user: Arc<dyn UserBlueprint>) -> Result<BlueprintId> {
        self.register(user.kind().to_owned(), Blueprint::User(user))
    }

    /// The id of an equal blueprint, registered under a name made from its numbers if it is new.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub fn intern(&mut self, blueprint: Blueprint) -> Result<BlueprintId> {
        if let Some(index) = self.entries.iter().position(|(_, known)| *known == blueprint) {
            return Ok(BlueprintId(index as u16));
        }
        let name = match &blueprint {
            Blueprint::ConvFilter { taps } => format!("conv_filter-{taps}"),
            Blueprint::Bottleneck { width, activation } => {
                format!("bottleneck-{width}-{}", activation.name())
            }
            Blueprint::Dense { activation } => format!("dense-{}", activation.name()),
            other => other.kind().to_owned(),
        };
        self.register(name, blueprint)
    }

    /// The id of a name.
    ///
    /// # Errors
    /// [`Error::UnregisteredBlueprint`], listing the known names.
    pub fn find(&self, name: &str) -> Result<BlueprintId> {
        match self.entries.iter().position(|(known, _)| known == name) {
            Some(index) => Ok(BlueprintId(index as u16)),
            None => Err(self.unregistered(name)),
        }
    }

    /// The blueprint of an id.
    ///
    /// # Errors
    /// [`Error::UnregisteredBlueprint`] for an id of another registry.
    pub fn get(&self, id: BlueprintId) -> Result<&Blueprint> {
        match self.entries.get(usize::from(id.0)) {
            Some((_, blueprint)) => Ok(blueprint),
            None => Err(self.unregistered(&format!("#{}", id.0))),
        }
    }

    /// The name of an id, if it is registered.
    pub fn name(&self, id: BlueprintId) -> Option<&str> {
        self.entries.get(usize::from(id.0)).map(|(name, _)| name.as_str())
    }

    /// Names and blueprints in the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Blueprint)> {
        self.entries.iter().map(|(name, blueprint)| (name.as_str(), blueprint))
    }

    fn unregistered(&self, name: &str) -> Error {
        let known: Vec<_> = self.entries.iter().map(|(known, _)| known.as_str()).collect();
        Error::UnregisteredBlueprint { name: name.to_owned(), known: known.join(", ") }
    }
}
