//! What the kernels take, as tables: of fatbins, and of all their functions.

use comfy_table::{CellAlignment, Table, presets};
use kasmina_sys::Arch;
use kasmina_sys::build::{Record, Resources, TensorUse};

use super::Built;

/// A row for each fatbin and architecture, with the most that a function of it takes.
pub(super) fn fatbins(rows: &[Built<'_>]) -> Table {
    let mut table = table(&[
        "fatbin",
        "code",
        "functions",
        "registers",
        "shared B",
        "stack B",
        "spilling",
        "spill stores B",
        "tensor loads",
        "tensor stores",
    ]);
    for (set, unit, record) in rows {
        let place = format!("{}/{}", set.package, unit.name);
        for arch in &record.archs {
            let own: Vec<_> = lines(record).filter(|line| line.1 == *arch).collect();
            let most = |of: fn(&Resources) -> Option<u32>| {
                own.iter().filter_map(|line| line.2.and_then(of)).max()
            };
            let sum =
                |of: fn(&TensorUse) -> u32| own.iter().filter_map(|line| line.3).map(of).sum();
            let spilling = own.iter().filter(|line| line.2.is_some_and(Resources::spills)).count();
            let has_machine_code = own.iter().any(|line| line.2.is_some());
            let counts = [
                Some(own.len() as u32),
                most(|row| row.registers),
                most(|row| Some(row.shared_bytes)),
                most(|row| Some(row.stack_bytes)),
                has_machine_code.then_some(spilling as u32),
                most(|row| Some(row.spill_stores)),
                Some(sum(|row| row.loads)),
                Some(sum(|row| row.stores)),
            ];
            table.add_row([place.clone(), arch.to_string()].into_iter().chain(counts.map(cell)));
        }
    }
    numbers_right(&mut table, 2);
    table
}

/// A row for each function and architecture.
pub(super) fn functions(rows: &[Built<'_>]) -> Table {
    let mut table = table(&[
        "package",
        "fatbin",
        "kernel",
        "code",
        "registers",
        "shared B",
        "stack B",
        "spill stores B",
        "spill loads B",
        "tensor loads",
        "tensor stores",
    ]);
    for (set, unit, record) in rows {
        for (name, arch, resources, tensors) in lines(record) {
            let names = [set.package.clone(), unit.name.clone(), name.to_owned(), arch.to_string()];
            let counts = [
                resources.and_then(|row| row.registers),
                resources.map(|row| row.shared_bytes),
                resources.map(|row| row.stack_bytes),
                resources.map(|row| row.spill_stores),
                resources.map(|row| row.spill_loads),
                tensors.map(|row| row.loads),
                tensors.map(|row| row.stores),
            ];
            table.add_row(names.into_iter().chain(counts.map(cell)));
        }
    }
    numbers_right(&mut table, 4);
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

fn cell(count: Option<u32>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

fn numbers_right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// One line for each function and code: machine code has resources, kernels have their use of tensor maps, and functions
/// that are called and not launched have the former alone.
fn lines(
    record: &Record,
) -> impl Iterator<Item = (&str, Arch, Option<&Resources>, Option<&TensorUse>)> {
    let is_same = |row: &Resources, tensors: &TensorUse| {
        row.arch == tensors.arch && row.function == tensors.function
    };
    let machine_code = record.resources.iter().map(move |row| {
        let tensors = record.tensors.iter().find(|tensors| is_same(row, tensors));
        (row.function.as_str(), row.arch, Some(row), tensors)
    });
    let ptx = record
        .tensors
        .iter()
        .filter(move |tensors| !record.resources.iter().any(|row| is_same(row, tensors)))
        .map(|tensors| (tensors.function.as_str(), tensors.arch, None, Some(tensors)));
    machine_code.chain(ptx)
}
