//! What `doctor` found, as data: one struct a part, each absence with its reason.

use std::path::Path;

use kasmina_core::Device as CoreDevice;
use kasmina_sys::build::{Environment, Status, find_nvcc, status};
use kasmina_sys::{
    Arch, DeviceInfo, DeviceProbe, Driver, Error, KERNELS, KernelImage, PACKAGE, Unavailable,
    probe, self_check,
};
use kasmina_tma::{DataType, LoadPath, LoadShape, TmaSupport};
use serde::Serialize;

use crate::workspace;

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The driver's version and file.
    pub driver: Outcome,
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
    /// The code of this crate's kernels that it would run.
    pub code: Outcome,
    /// A kernel launched and compared with the host.
    pub self_check: Outcome,
    /// Whether the device computed something else than the host.
    pub failed_self_check: bool,
    /// Tensor maps, or why not.
    pub tma: String,
    /// The matrix that the load ladder was asked about.
    pub load_shape: String,
    /// The rung of the load ladder.
    pub load_path: Outcome,
    /// Every better rung.
    pub passed_by: Vec<RungReport>,
}

/// A rung that was passed by.
#[derive(Debug, Serialize)]
pub struct RungReport {
    /// Which.
    pub path: String,
    /// Why.
    pub reason: String,
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

/// Looks at everything. Nothing of it fails: what cannot be looked at is part of the report.
pub fn examine() -> Report {
    let probe = probe(PACKAGE, &KERNELS);
    let auto = CoreDevice::auto();
    Report {
        driver: outcome(&probe.driver, |driver| describe_driver(driver)),
        no_devices: probe.no_devices.as_ref().map(Unavailable::to_string),
        devices: probe.devices.iter().map(examine_device).collect(),
        toolkit: examine_toolkit(),
        kernels: examine_kernels(),
        auto: AutoReport {
            device: auto.device.to_string(),
            because: auto.because.map(|reason| reason.to_string()),
        },
    }
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
    let (load_path, passed_by) = match info {
        Some(info) => match LoadPath::select(&tma, info.capability, &SHAPE, None) {
            Ok(selection) => (Outcome::Found(selection.path.to_string()), selection.passed_by),
            Err(error) => (Outcome::Unavailable(error.to_string()), Vec::new()),
        },
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
        code: outcome(&found.code, |archs| list(archs)),
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
        passed_by: passed_by
            .into_iter()
            .map(|rung| RungReport { path: rung.path.to_string(), reason: rung.reason.to_string() })
            .collect(),
    }
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
    let mut reports: Vec<KernelReport> = KERNELS
        .iter()
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
