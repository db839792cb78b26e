//! What `doctor` found, as data: one struct a part, each absence with its reason.

use std::path::Path;

use kasmina_core::Device as CoreDevice;
use kasmina_core::cuda::inspect_autotune;
use kasmina_sys::build::{Environment, Status, find_nvcc, status};
use kasmina_sys::{
    Arch, ComputeCapability, Device, DeviceAttribute, DeviceInfo, DeviceProbe, Driver, Error,
    KERNELS, KernelImage, PACKAGE, Unavailable, probe, self_check,
};
use kasmina_tma::{DataType, LoadPath, LoadShape, NotPossible, TmaSupport};
use serde::Serialize;

use crate::workspace;

/// Of the JSON: a key that goes or means something else counts it up, a new key does not.
pub const SCHEMA: u32 = 1;

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The driver's version and file.
    pub driver: Outcome,
    /// The kernel module's release, which is not the CUDA version that the driver is for; `None` where none is loaded.
    pub driver_release: Option<String>,
    /// Why there are no devices although there is a driver.
    pub no_devices: Option<String>,
    /// Every device.
    pub devices: Vec<DeviceReport>,
    /// The compiler of kernels.
    pub toolkit: ToolkitReport,
    /// Every kernel file of the workspace, and every image in this executable.
    pub kernels: Vec<KernelReport>,
    /// What `--device auto` comes to.
    pub auto: AutoReport,
    /// What engines do about rungs and cuts.
    pub autotune: AutotuneReport,
}

/// `KASMINA_AUTOTUNE` and where choices are kept.
#[derive(Debug, Serialize)]
pub struct AutotuneReport {
    /// `off`, `load` or `tune`.
    pub mode: String,
    /// The folder of measured choices.
    pub folder: Outcome,
    /// What is wrong with the variable.
    pub problems: Vec<String>,
}

/// Measured choices for a device, its driver and the kernels of this executable.
#[derive(Debug, Serialize)]
pub struct DeviceAutotuneReport {
    /// How many would be used.
    pub choices: usize,
    /// Files and choices that are not used, with the reason.
    pub problems: Vec<String>,
}

/// Something that is there, or the reason why it is not.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is there.
    Found(String),
    /// It is not.
    Unavailable(String),
}

/// One device.
#[derive(Debug, Serialize)]
pub struct DeviceReport {
    /// Its place in the driver's order.
    pub ordinal: u32,
    /// Name, capability, size.
    pub summary: Outcome,
    /// Its name for good.
    pub uuid: Option<Outcome>,
    /// `major.minor`.
    pub compute_capability: Option<String>,
    /// Streaming multiprocessors.
    pub multiprocessors: Option<u32>,
    /// Bytes.
    pub total_memory: Option<u64>,
    /// What the device can do beyond its capability.
    pub features: Vec<FeatureReport>,
    /// For every image in this executable, the code that the device would run.
    pub code: Vec<CodeReport>,
    /// A kernel launched and compared with the host.
    pub self_check: Outcome,
    /// Whether the device computed something else than the host.
    pub failed_self_check: bool,
    /// Tensor maps, or why not.
    pub tma: String,
    /// The matrix that the load ladder was asked about.
    pub load_shape: String,
    /// The rung of the load ladder that would be taken.
    pub load_path: Outcome,
    /// Every rung, best first; empty where the capability is not known.
    pub ladder: Vec<RungReport>,
    /// Choices that were measured on it.
    pub autotune: DeviceAutotuneReport,
}

/// A rung of the load ladder.
#[derive(Debug, Serialize)]
pub struct RungReport {
    /// Which.
    pub path: String,
    /// Whether it would be taken.
    pub chosen: bool,
    /// Whether it could be.
    pub possible: bool,
    /// Why it is not taken; `None` for the one that is.
    pub reason: Option<String>,
}

/// A device attribute that is yes or no.
#[derive(Debug, Serialize)]
pub struct FeatureReport {
    /// Which.
    pub name: &'static str,
    /// `None` where the driver did not say.
    pub supported: Option<bool>,
    /// Why it did not.
    pub reason: Option<String>,
}

/// An image on a device.
#[derive(Debug, Serialize)]
pub struct CodeReport {
    /// The crate.
    pub package: &'static str,
    /// The fatbin.
    pub name: &'static str,
    /// The code that would run.
    pub code: Outcome,
}

/// Where nvcc was looked for.
#[derive(Debug, Serialize)]
pub struct ToolkitReport {
    /// What was found.
    pub found: Option<String>,
    /// Every place before it, with the reason.
    pub passed_by: Vec<String>,
}

/// One fatbin, as a file and as part of this executable.
#[derive(Debug, Serialize)]
pub struct KernelReport {
    /// The crate.
    pub package: String,
    /// The fatbin.
    pub name: String,
    /// The file's state; `None` outside the workspace.
    pub file: Option<String>,
    /// What this executable carries; `None` for crates that it does not contain.
    pub embedded: Option<Outcome>,
}

/// What `--device auto` comes to.
#[derive(Debug, Serialize)]
pub struct AutoReport {
    /// The device.
    pub device: String,
    /// Why it is no GPU.
    pub because: Option<String>,
}

/// Where the driver's kernel module tells its release.
const MODULE_RELEASE: &str = "/sys/module/nvidia/version";

/// What the kernels and the safe layer use where a device has it.
const FEATURES: [(&str, DeviceAttribute); 4] = [
    ("memory-pools", DeviceAttribute::MEMORY_POOLS_SUPPORTED),
    ("cooperative-launch", DeviceAttribute::COOPERATIVE_LAUNCH),
    ("cluster-launch", DeviceAttribute::CLUSTER_LAUNCH),
    ("tensor-maps", DeviceAttribute::TENSOR_MAP_ACCESS_SUPPORTED),
];

/// Every image in this executable.
fn images() -> impl Iterator<Item = &'static KernelImage> {
    KERNELS.iter().chain(&kasmina_tma::KERNELS)
}

/// Looks at everything. Nothing of it fails: what cannot be looked at is part of the report.
pub fn examine() -> Report {
    let probe = probe(PACKAGE, &KERNELS);
    let auto = CoreDevice::auto();
    Report {
        schema: SCHEMA,
        driver: outcome(&probe.driver, |driver| describe_driver(driver)),
        driver_release: std::fs::read_to_string(MODULE_RELEASE)
            .ok()
            .map(|release| release.trim().to_owned()),
        no_devices: probe.no_devices.as_ref().map(Unavailable::to_string),
        devices: probe.devices.iter().map(examine_device).collect(),
        toolkit: examine_toolkit(),
        kernels: examine_kernels(),
        auto: AutoReport {
            device: auto.device.to_string(),
            because: auto.because.map(|reason| reason.to_string()),
        },
        autotune: examine_autotune(),
    }
}

fn examine_autotune() -> AutotuneReport {
    let found = inspect_autotune(None);
    AutotuneReport {
        mode: found.mode.to_string(),
        folder: match found.folder {
            Some(folder) => Outcome::Found(folder.display().to_string()),
            None => Outcome::Unavailable(
                "set KASMINA_CACHE_DIR, XDG_CACHE_HOME or HOME; choices are forgotten now"
                    .to_owned(),
            ),
        },
        problems: found.problems,
    }
}

/// What lies on the disk for a device. The variable's own problems are told once, for all devices.
fn examine_choices(device: &Device, info: Option<&DeviceInfo>) -> DeviceAutotuneReport {
    let Some(info) = info else {
        return DeviceAutotuneReport { choices: 0, problems: Vec::new() };
    };
    let found = inspect_autotune(Some((device, info)));
    let general = inspect_autotune(None).problems;
    let problems = found.problems.into_iter().filter(|problem| !general.contains(problem));
    DeviceAutotuneReport { choices: found.choices, problems: problems.collect() }
}

fn outcome<T, E: std::fmt::Display>(
    value: &Result<T, E>,
    found: impl FnOnce(&T) -> String,
) -> Outcome {
    match value {
        Ok(value) => Outcome::Found(found(value)),
        Err(reason) => Outcome::Unavailable(reason.to_string()),
    }
}

fn describe_driver(driver: &Driver) -> String {
    format!("for CUDA {}, from {}", driver.version(), driver.path().display())
}

fn describe_device(info: &DeviceInfo) -> String {
    format!(
        "{}, compute capability {}, {} SMs, {:.1} GiB, {} KiB shared memory a block, {} MiB L2",
        info.name,
        info.capability,
        info.multiprocessors,
        info.total_memory as f64 / f64::from(1 << 30),
        info.shared_memory_per_block >> 10,
        info.l2_cache >> 20,
    )
}

/// A large, dense and well aligned matrix of f32: the case that the kernels are made for.
const SHAPE: LoadShape = LoadShape {
    rows: 8192,
    columns: 8192,
    row_stride: 8192,
    data_type: DataType::F32,
    alignment: 256,
};

fn examine_device(found: &DeviceProbe) -> DeviceReport {
    let device = found.device;
    let info = found.info.as_ref().ok();
    let tma = TmaSupport::detect(&device);
    let (load_path, ladder) = match info {
        Some(info) => climb(&tma, info.capability),
        None => (Outcome::Unavailable("the capability is not known".to_owned()), Vec::new()),
    };
    let check = self_check(device);
    DeviceReport {
        ordinal: device.ordinal(),
        summary: outcome(&found.info, describe_device),
        uuid: info.map(|info| outcome(&info.uuid, ToString::to_string)),
        compute_capability: info.map(|info| info.capability.to_string()),
        multiprocessors: info.map(|info| info.multiprocessors),
        total_memory: info.map(|info| info.total_memory),
        features: FEATURES
            .iter()
            .map(|&(name, attribute)| feature(&device, name, attribute))
            .collect(),
        code: images().map(|image| code(&device, &found.info, image)).collect(),
        self_check: outcome(&check, |check| {
            format!(
                "passed: {} words, code compiled for {}, running as machine code {}, {} registers",
                check.words, check.compiled_for, check.machine_code, check.registers
            )
        }),
        failed_self_check: matches!(check, Err(Error::SelfCheck { .. })),
        tma: tma.to_string(),
        load_shape: format!("{} × {} {}, dense", SHAPE.rows, SHAPE.columns, SHAPE.data_type),
        load_path,
        ladder,
        autotune: examine_choices(&device, info),
    }
}

/// The rung that would be taken, and what there is to say of each: every one is asked for by itself too, since the ladder
/// stops at the first that is possible.
fn climb(tma: &TmaSupport, capability: ComputeCapability) -> (Outcome, Vec<RungReport>) {
    let chosen = match LoadPath::select(tma, capability, &SHAPE, None) {
        Ok(selection) => selection.path,
        Err(error) => return (Outcome::Unavailable(error.to_string()), Vec::new()),
    };
    let rungs = LoadPath::LADDER.into_iter().map(|path| {
        let refusal = match LoadPath::select(tma, capability, &SHAPE, Some(path)) {
            Ok(_) => None,
            Err(NotPossible::Forced { reason, .. }) => Some(reason.to_string()),
            Err(other) => Some(other.to_string()),
        };
        let possible = refusal.is_none();
        let better = (possible && path != chosen).then(|| format!("{chosen} is better"));
        RungReport {
            path: path.to_string(),
            chosen: path == chosen,
            possible,
            reason: refusal.or(better),
        }
    });
    (Outcome::Found(chosen.to_string()), rungs.collect())
}

fn feature(device: &Device, name: &'static str, attribute: DeviceAttribute) -> FeatureReport {
    match device.attribute(attribute) {
        Ok(value) => FeatureReport { name, supported: Some(value != 0), reason: None },
        Err(error) => FeatureReport { name, supported: None, reason: Some(error.to_string()) },
    }
}

fn code(
    device: &Device,
    info: &Result<DeviceInfo, Error>,
    image: &'static KernelImage,
) -> CodeReport {
    let code = match info {
        Ok(info) => {
            outcome(&image.code_for(info.capability, device.driver().version()), Arch::to_string)
        }
        Err(error) => Outcome::Unavailable(error.to_string()),
    };
    CodeReport { package: image.package, name: image.name, code }
}

fn list(archs: &[Arch]) -> String {
    archs.iter().map(Arch::to_string).collect::<Vec<_>>().join(", ")
}

fn examine_toolkit() -> ToolkitReport {
    match find_nvcc(&Environment::of_process()) {
        Ok(search) => ToolkitReport {
            found: search.found.map(|nvcc| {
                format!("nvcc {} from {}: {}", nvcc.release, nvcc.origin, nvcc.path.display())
            }),
            passed_by: search
                .passed_by
                .iter()
                .map(|place| format!("{}: {}", place.origin, place.reason))
                .collect(),
        },
        Err(error) => ToolkitReport { found: None, passed_by: vec![error.to_string()] },
    }
}

/// Every image in this executable, and beside it the file in the workspace where one is around.
fn examine_kernels() -> Vec<KernelReport> {
    let mut reports: Vec<KernelReport> = images()
        .map(|image| KernelReport {
            package: image.package.to_owned(),
            name: image.name.to_owned(),
            file: None,
            embedded: Some(describe_image(image)),
        })
        .collect();
    let here = std::env::current_dir().ok();
    let Some(root) = here.as_deref().and_then(workspace::root) else {
        return reports;
    };
    for (package, name, file) in kernel_files(&root) {
        let known = reports.iter_mut().find(|known| known.package == package && known.name == name);
        match known {
            Some(known) => known.file = Some(file),
            None => {
                reports.push(KernelReport { package, name, file: Some(file), embedded: None });
            }
        }
    }
    reports
}

fn describe_image(image: &KernelImage) -> Outcome {
    outcome(&image.fatbin(), |fatbin| {
        let (toolkit, bytes) = (fatbin.toolkit, fatbin.bytes.len());
        format!(
            "{} (CUDA {toolkit}, {bytes} bytes, sources {})",
            list(fatbin.archs),
            fatbin.source_hash
        )
    })
}

fn kernel_files(root: &Path) -> Vec<(String, String, String)> {
    let sets = match workspace::kernel_sets(root) {
        Ok(sets) => sets,
        Err(error) => return vec![("workspace".to_owned(), "?".to_owned(), error.to_string())],
    };
    sets.iter()
        .flat_map(|set| set.units.iter().map(move |unit| (set, unit)))
        .map(|(set, unit)| {
            let text = match status(unit) {
                Ok(Status::Fresh(record)) => {
                    format!("fresh: {} (nvcc {})", list(&record.archs), record.nvcc)
                }
                Ok(Status::Stale { reason }) => format!("stale: {reason}"),
                Ok(Status::NotBuilt) => {
                    format!("not built; run `{}`", kasmina_sys::BUILD_COMMAND)
                }
                Err(error) => error.to_string(),
            };
            (set.package.clone(), unit.name.clone(), text)
        })
        .collect()
}
