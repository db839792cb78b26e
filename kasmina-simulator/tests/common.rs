//! What the tests of the machine share: images of test sources, and memory that kernels may touch.

#![allow(dead_code, reason = "each test uses some of it")]

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use kasmina_simulator::machine::{Fault, Image, Launch, Memory};
use kasmina_simulator::translate::{Options, Unit, build};

/// The image of a source in `tests/kernels`.
pub(crate) fn image(name: &str, races: bool) -> Image {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels");
    let unit = Unit {
        name: name.to_owned(),
        source: folder.join(format!("{name}.cu")),
        include: Vec::new(),
    };
    let out = tempfile::tempdir().expect("a folder");
    let options = Options { races, ..Options::default() };
    let path = build(&unit, out.path(), &options).unwrap_or_else(|error| panic!("{error}"));
    Image::load(&std::fs::read(path).expect("the image is there"))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The allocations of a test.
#[derive(Debug, Default)]
pub(crate) struct Book(Mutex<Vec<Range<u64>>>);

impl Memory for Book {
    fn allocation_of(&self, address: u64) -> Option<Range<u64>> {
        self.0.lock().expect("nobody panics").iter().find(|range| range.contains(&address)).cloned()
    }
}

impl Book {
    /// Memory of the device, which the kernel finds at the argument's address.
    pub(crate) fn array<T: Copy>(&self, content: &[T]) -> Array<T> {
        let bytes = size_of_val(content);
        let mut words = vec![0u128; bytes.div_ceil(16).max(1) + 8];
        let begin = words.as_mut_ptr().cast::<T>();
        // SAFETY: there is room for the content, and an address of 16 bytes does for every type here.
        unsafe { begin.copy_from_nonoverlapping(content.as_ptr(), content.len()) };
        let address = begin as u64;
        self.0.lock().expect("nobody panics").push(address..address + bytes as u64);
        Array { words, count: content.len(), of: std::marker::PhantomData }
    }
}

/// An array that a kernel may touch.
#[derive(Debug)]
pub(crate) struct Array<T> {
    words: Vec<u128>,
    count: usize,
    of: std::marker::PhantomData<T>,
}

impl<T: Copy> Array<T> {
    /// The argument that names it.
    pub(crate) fn argument(&self) -> Vec<u8> {
        (self.words.as_ptr() as u64).to_le_bytes().to_vec()
    }

    pub(crate) fn address(&self) -> u64 {
        self.words.as_ptr() as u64
    }

    pub(crate) fn read(&self) -> Vec<T> {
        let begin = self.words.as_ptr().cast::<T>();
        // SAFETY: made of so many values, which a kernel may have changed meanwhile.
        (0..self.count).map(|i| unsafe { begin.add(i).read_volatile() }).collect()
    }
}

pub(crate) fn word(value: u32) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

/// A launch of so many blocks of so many threads.
pub(crate) fn shape(blocks: u32, threads: u32) -> Launch {
    Launch {
        grid: [blocks, 1, 1],
        block: [threads, 1, 1],
        cluster: [1, 1, 1],
        dynamic_shared: 0,
        cooperative: false,
    }
}

/// Runs a kernel that the image has.
pub(crate) fn run(
    image: &Image,
    name: &str,
    launch: &Launch,
    arguments: &[Vec<u8>],
    book: &Book,
) -> Result<(), Fault> {
    image.kernel(name).unwrap_or_else(|| panic!("no kernel {name}")).run(launch, arguments, book)
}
