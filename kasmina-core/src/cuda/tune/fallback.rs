//! When a launch is refused: the next way down, and what is kept of the refusal. Knows no device.

use kasmina_sys::{CUresult, Error};

use crate::cuda::error::CudaError;

/// Codes by which the driver refuses a configuration and nothing else. Memory that is used up is none of them: another cut
/// would hide it.
const REFUSALS: [CUresult; 4] = [
    CUresult::INVALID_VALUE,
    CUresult::LAUNCH_OUT_OF_RESOURCES,
    CUresult::NOT_SUPPORTED,
    CUresult::INVALID_CLUSTER_SIZE,
];

/// Whether an error is of the way that was tried, so that another may do: nothing was queued then.
pub(super) fn is_refusal(error: &CudaError) -> bool {
    match error {
        CudaError::Driver(Error::Launch { .. } | Error::Parameters { .. }) => true,
        CudaError::Driver(Error::Call { call, code, .. }) => {
            call.starts_with("cuLaunchKernel") && REFUSALS.contains(code)
        }
        CudaError::Map(_) | CudaError::Geometry(_) => true,
        _ => false,
    }
}

/// The way that was taken.
#[derive(Debug, PartialEq)]
pub(super) struct Taken<W, R, E> {
    /// What it gave.
    pub(super) result: R,
    pub(super) way: W,
    /// Those before it.
    pub(super) refused: Vec<(W, E)>,
}

/// Runs the first of `ways` that is not refused. Returns what it gave, which it was, and what was refused before it.
///
/// # Errors
/// The first error that is no refusal; or, where all are refused, the last refusal. `None` where there were no ways.
pub(super) fn stepping_down<W, R, E>(
    ways: impl IntoIterator<Item = W>,
    mut run: impl FnMut(&W) -> Result<R, E>,
    is_refusal: impl Fn(&E) -> bool,
) -> Result<Taken<W, R, E>, Option<E>> {
    let mut refused: Vec<(W, E)> = Vec::new();
    for way in ways {
        match run(&way) {
            Ok(result) => return Ok(Taken { result, way, refused }),
            Err(error) if is_refusal(&error) => refused.push((way, error)),
            Err(error) => return Err(Some(error)),
        }
    }
    Err(refused.pop().map(|(_, error)| error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_way_that_works_is_taken_and_the_refusals_before_it_are_told() {
        let mut tried = Vec::new();
        let run = |way: &u32| {
            tried.push(*way);
            if *way < 3 { Err(format!("{way} is refused")) } else { Ok(way * 10) }
        };
        let outcome = stepping_down([1, 2, 3, 4], run, |_| true);
        let refused = vec![(1, "1 is refused".to_owned()), (2, "2 is refused".to_owned())];
        assert_eq!(outcome, Ok(Taken { result: 30, way: 3, refused }));
        assert_eq!(tried, [1, 2, 3]);
    }

    #[test]
    fn an_error_that_is_no_refusal_ends_it() {
        let run = |way: &u32| Err::<(), _>(*way);
        assert_eq!(stepping_down([1, 2, 3], run, |error| *error < 2), Err(Some(2)));
        assert_eq!(stepping_down([1, 2, 3], run, |_| true), Err(Some(3)));
        assert_eq!(stepping_down([], run, |_| true), Err(None));
    }

    #[test]
    fn only_a_configuration_is_refused() {
        let call =
            |call, code| CudaError::from(Error::Call { call, arguments: String::new(), code });
        assert!(is_refusal(&call("cuLaunchKernelEx", CUresult::LAUNCH_OUT_OF_RESOURCES)));
        assert!(is_refusal(&call("cuLaunchKernelEx", CUresult::INVALID_VALUE)));
        assert!(!is_refusal(&call("cuLaunchKernelEx", CUresult::ILLEGAL_ADDRESS)));
        assert!(!is_refusal(&call("cuLaunchKernelEx", CUresult::OUT_OF_MEMORY)));
        assert!(!is_refusal(&call("cuMemAllocFromPoolAsync", CUresult::INVALID_VALUE)));
        assert!(!is_refusal(&CudaError::NoImage));
    }
}
