//! Loads one tile of a matrix through a tensor map; the README's program.

use kasmina_sys::{ByValue, Context, DeviceBuffer, DevicePointer, Driver};
use kasmina_sys::{LaunchConfig, Module, Stream};
use kasmina_tma::{BoundTensorMap, DataType, Geometry, KERNELS, TensorMap};

type Tiles = DevicePointer<[i32; 7]>;
type Arguments = (TensorMap, ByValue<[u64; 4]>, Tiles, DevicePointer<f32>, DevicePointer<u32>);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let context = Context::primary(Driver::load()?.device(0)?)?;
    let stream = Stream::new(&context)?;
    let image = KERNELS.iter().find(|image| image.name == "tile_copy").ok_or("no such kernel")?;
    let module = Module::load(&context, image.fatbin()?)?;
    let load = module.kernel::<Arguments>("kasmina_tma_load_tiles")?;

    let host: Vec<f32> = (0..100 * 4096).map(|i| i as f32).collect();
    let matrix = DeviceBuffer::from_host(&stream, &host)?;
    let tiled = Geometry::tiled(DataType::F32).sizes(&[4096, 100]).box_sides(&[32, 8]);
    let geometry = tiled.build()?;
    let map = BoundTensorMap::encode(matrix.as_slice(), &geometry)?;

    // One tile, from column 64 and row 96 on: the matrix has four more rows, the tile eight.
    let tiles = DeviceBuffer::from_host(&stream, &[[64, 96, 0, 0, 0, 0, 0]])?;
    let output = DeviceBuffer::zeroed(&stream, 8 * 32)?;
    let status = DeviceBuffer::zeroed(&stream, 2)?;
    // At most a second of waiting; rank 2 and 1 tile; bytes that the barrier expects, and of the tile.
    let bytes = geometry.transaction_bytes() | geometry.box_bytes() << 32;
    let job = ByValue([1_000_000_000, 2 | 1 << 32, bytes, 0]);
    // SAFETY: these are the kernel's parameters, and all buffers live until the copies below have waited for it.
    unsafe {
        let arguments = (map.unbound(), job, tiles.pointer(), output.pointer(), status.pointer());
        load.launch(&stream, &LaunchConfig::new(1, 128).shared_bytes(2048), arguments)?;
    }
    let tile = output.to_vec()?;
    assert_eq!(status.to_vec()?, [0, 0]);
    assert_eq!(tile[..32], host[96 * 4096 + 64..][..32]);
    assert_eq!(tile[4 * 32..], [0.0; 4 * 32]); // outside
    Ok(())
}
