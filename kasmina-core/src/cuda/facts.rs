//! What the host believes of each kernel, for checks against what the compiler said: the arguments that it is launched with, and
//! the block that the streaming kernels' table gives it.

use kasmina_sys::KernelArguments;

use super::variants::{BackwardVariant, ForwardVariant, backward_image, forward_image};
use super::{
    backward, cuts, engine, executor, hand_over, matrices, seeds, stack, stencil, testing_claims,
    whole_input,
};

/// A kernel of the streaming tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamingKernel {
    /// The fatbin.
    pub image: String,
    /// The kernel.
    pub name: String,
    /// Threads of a block.
    pub threads: u32,
    /// Blocks that the grid is made to have on a multiprocessor at once.
    pub blocks: u32,
}

/// Every kernel of the streaming tables.
pub fn streaming_kernels() -> Vec<StreamingKernel> {
    let forward = ForwardVariant::all().map(|variant| StreamingKernel {
        image: forward_image(variant.dtype),
        name: variant.name(),
        threads: variant.threads(),
        blocks: variant.blocks(),
    });
    let backward = BackwardVariant::all().map(|variant| StreamingKernel {
        image: backward_image(variant.dtype),
        name: variant.name(),
        threads: variant.threads(),
        blocks: 1,
    });
    forward.chain(backward).collect()
}

/// Bytes of each argument that a kernel of this crate is launched with, from the very type that its launch has; `None` for a name
/// that the host never launches.
pub fn argument_bytes(kernel: &str) -> Option<&'static [usize]> {
    let starts = |prefix| kernel.strip_prefix(prefix).is_some();
    Some(match kernel {
        "kasmina_tile_flags" => cuts::TileFlags::SIZES,
        "kasmina_collect_chunks" | "kasmina_collect_gradients" => cuts::Collect::SIZES,
        "kasmina_empty_chunks" | "kasmina_empty_gradients" => cuts::Empty::SIZES,
        "kasmina_hand_over" => hand_over::HandOver::SIZES,
        "kasmina_empty_histograms" => hand_over::EmptyHistograms::SIZES,
        "kasmina_finalize_block" | "kasmina_finalize_warp" => backward::Finalize::SIZES,
        "kasmina_lower_by_warp" | "kasmina_lower_by_block" => seeds::Lower::SIZES,
        "kasmina_adamw" => seeds::AdamWSmall::SIZES,
        "kasmina_adamw_alone" => seeds::AdamWAlone::SIZES,
        "kasmina_adamw_measure" => seeds::AdamWMeasure::SIZES,
        "kasmina_adamw_check" | "kasmina_adamw_apply" => seeds::AdamWShared::SIZES,
        "kasmina_resident" => executor::RESIDENT_ARGUMENTS,
        "kasmina_resident_run" => executor::RUN_ARGUMENTS,
        "kasmina_matrix_merge" => matrices::Merge::SIZES,
        "kasmina_claims_reduce" => testing_claims::Reduce::SIZES,
        "kasmina_claims_sum_segments" => testing_claims::SegmentSums::SIZES,
        _ if starts("kasmina_claims_sum_") => testing_claims::Sum::SIZES,
        _ if starts("kasmina_claims_") => testing_claims::Programs::SIZES,
        _ if starts("kasmina_forward_") && kernel.contains("_bulk_tensor_") => {
            engine::BulkTensorForward::SIZES
        }
        _ if starts("kasmina_forward_") => engine::PlainForward::SIZES,
        _ if starts("kasmina_backward_") && kernel.contains("_bulk_tensor_") => {
            backward::BulkTensorBackward::SIZES
        }
        _ if starts("kasmina_backward_") => backward::PlainBackward::SIZES,
        "kasmina_stack_finalize" => stack::StackFinalize::SIZES,
        _ if starts("kasmina_stack_forward_") => stack::StackForward::SIZES,
        _ if starts("kasmina_stack_backward_") => stack::StackBackward::SIZES,
        _ if starts("kasmina_strict_") => whole_input::Strict::SIZES,
        _ if starts("kasmina_histogram_") => whole_input::HistogramOf::SIZES,
        _ if starts("kasmina_matrix_") => matrices::Matrix::SIZES,
        _ if starts("kasmina_stencil_") => stencil::Stencil::SIZES,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::variants::{kernel_names, kernel_places};

    #[test]
    fn every_kernel_of_the_lists_has_arguments() {
        for (image, name) in kernel_places() {
            let bytes = argument_bytes(&name).unwrap_or_default();
            assert!(!bytes.is_empty(), "{image}, {name}");
        }
        assert_eq!(argument_bytes("kasmina_novelty"), None);
    }

    #[test]
    fn tensor_maps_come_before_the_struct() {
        let bytes = |name| argument_bytes(name).unwrap_or_default();
        assert_eq!(bytes("kasmina_forward_f32_bulk_tensor_packet_copy"), [128, 128, 168]);
        assert_eq!(bytes("kasmina_backward_f32_bulk_tensor_packet"), [128, 128, 128, 184]);
        assert_eq!(bytes("kasmina_backward_f32_bulk_packet"), [184]);
    }

    #[test]
    fn the_streaming_kernels_are_the_tables() {
        let names: Vec<String> = streaming_kernels().into_iter().map(|one| one.name).collect();
        assert_eq!(names, kernel_names());
    }
}
