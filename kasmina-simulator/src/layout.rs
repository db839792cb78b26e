//! Which shared variables a kernel has: what stands behind every image, since the library's own symbols do not say it.
//!
//! The compiler puts every function and every variable into a section of its own, and relocations say which needs which. So what a
//! kernel can reach is known from the object file, as nvcc knows it for the size of a kernel's declared shared memory.

use std::collections::{BTreeMap, BTreeSet};

use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolIndex};

/// Ends an image whose layout stands before it.
const MAGIC: &[u8; 8] = b"ksimlay1";

/// Of each kernel, where in the image (in bytes from its beginning in memory) the records of its shared variables are.
pub(crate) type Layout = BTreeMap<String, Vec<u64>>;

/// The layout of a library that was linked from an object file, of these kernels.
pub(crate) fn of(object: &[u8], library: &[u8], kernels: &[String]) -> Result<Layout, String> {
    let file = object::File::parse(object).map_err(|error| error.to_string())?;
    let linked = object::File::parse(library).map_err(|error| error.to_string())?;
    let addresses: BTreeMap<&str, u64> = linked
        .symbols()
        .filter_map(|symbol| Some((symbol.name().ok()?, symbol.address())))
        .collect();
    let mut slots: BTreeMap<usize, &str> = BTreeMap::new();
    let mut functions: BTreeMap<&str, usize> = BTreeMap::new();
    for symbol in file.symbols() {
        let (Ok(name), Some(section)) =
            (symbol.name(), symbol.section_index().map(|section| section.0))
        else {
            continue;
        };
        // ksim::kSlot<…>, and not the guard of its initialisation.
        if name.starts_with("_ZN4ksim5kSlotI") || name.starts_with("_ZN4ksimL5kSlotI") {
            slots.insert(section, name);
        } else if kernels.iter().any(|kernel| kernel == name) {
            functions.insert(name, section);
        }
    }
    let needs = needs(&file);
    let mut layout = Layout::new();
    for kernel in kernels {
        let begin = functions
            .get(kernel.as_str())
            .ok_or_else(|| format!("no function {kernel} in the object file"))?;
        let mut names: Vec<&str> = reached(&needs, *begin)
            .iter()
            .filter_map(|section| slots.get(section).copied())
            .collect();
        names.sort_unstable();
        let places: Result<Vec<u64>, String> = names
            .into_iter()
            .map(|name| {
                addresses.get(name).copied().ok_or_else(|| format!("no {name} in the library"))
            })
            .collect();
        layout.insert(kernel.clone(), places?);
    }
    Ok(layout)
}

/// Which sections each section names.
fn needs(file: &object::File) -> BTreeMap<usize, BTreeSet<usize>> {
    let of_symbol = |index: SymbolIndex| Some(file.symbol_by_index(index).ok()?.section_index()?.0);
    file.sections()
        .map(|section| {
            let named =
                section.relocations().filter_map(|(_, relocation)| match relocation.target() {
                    RelocationTarget::Symbol(symbol) => of_symbol(symbol),
                    RelocationTarget::Section(section) => Some(section.0),
                    _ => None,
                });
            (section.index().0, named.collect())
        })
        .collect()
}

fn reached(needs: &BTreeMap<usize, BTreeSet<usize>>, begin: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::from([begin]);
    let mut new = vec![begin];
    while let Some(section) = new.pop() {
        for &next in needs.get(&section).into_iter().flatten() {
            if reached.insert(next) {
                new.push(next);
            }
        }
    }
    reached
}

/// The bytes that stand behind an image.
pub(crate) fn to_bytes(layout: &Layout) -> Vec<u8> {
    let mut text = String::new();
    for (kernel, places) in layout {
        text += kernel;
        for place in places {
            text += &format!(" {place:x}");
        }
        text.push('\n');
    }
    let mut bytes = text.into_bytes();
    let length = bytes.len() as u64;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(MAGIC);
    bytes
}

/// The layout behind an image's bytes.
pub(crate) fn from_bytes(image: &[u8]) -> Option<Layout> {
    let rest = image.strip_suffix(MAGIC)?;
    let (rest, length) = rest.split_last_chunk::<8>()?;
    let begin = rest.len().checked_sub(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let text = std::str::from_utf8(&rest[begin..]).ok()?;
    text.lines()
        .map(|line| {
            let mut words = line.split(' ');
            let kernel = words.next()?.to_owned();
            let places: Option<Vec<u64>> =
                words.map(|word| u64::from_str_radix(word, 16).ok()).collect();
            Some((kernel, places?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_found_behind_anything() {
        let layout: Layout =
            [("a".to_owned(), vec![16, 0xabc]), ("b".to_owned(), Vec::new())].into();
        let mut image = b"ELF".to_vec();
        image.extend(to_bytes(&layout));
        assert_eq!(from_bytes(&image), Some(layout));
        assert_eq!(from_bytes(b"ELF"), None);
        image[3] = 0xff;
        assert_eq!(from_bytes(&image), None);
    }
}
