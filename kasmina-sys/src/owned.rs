//! Driver objects with one owner: destroyed once, in their context, by hand or by a drop.

use crate::capture::apart_from_captures;
use crate::context::Context;
use crate::driver::Driver;
use crate::error::{Error, check, report_drop_error};
use crate::raw::{CUevent_st, CUgraph_st, CUgraphExec_st, CUresult};
use crate::unavailable::Unavailable;

/// A kind of object that one call destroys.
pub(crate) trait Destroy: Sized {
    /// What errors call it.
    const NAME: &'static str;
    /// The call's name.
    const CALL: &'static str;

    /// The call.
    fn destroyer(
        driver: &Driver,
    ) -> Result<unsafe extern "C" fn(*mut Self) -> CUresult, Unavailable>;
}

impl Destroy for CUevent_st {
    const NAME: &'static str = "event";
    const CALL: &'static str = "cuEventDestroy";

    fn destroyer(
        driver: &Driver,
    ) -> Result<unsafe extern "C" fn(*mut Self) -> CUresult, Unavailable> {
        driver.cuEventDestroy()
    }
}

impl Destroy for CUgraph_st {
    const NAME: &'static str = "graph";
    const CALL: &'static str = "cuGraphDestroy";

    fn destroyer(
        driver: &Driver,
    ) -> Result<unsafe extern "C" fn(*mut Self) -> CUresult, Unavailable> {
        driver.cuGraphDestroy()
    }
}

impl Destroy for CUgraphExec_st {
    const NAME: &'static str = "graph";
    const CALL: &'static str = "cuGraphExecDestroy";

    fn destroyer(
        driver: &Driver,
    ) -> Result<unsafe extern "C" fn(*mut Self) -> CUresult, Unavailable> {
        driver.cuGraphExecDestroy()
    }
}

/// An object of the driver's and its context.
pub(crate) struct Owned<T: Destroy> {
    context: Context,
    raw: *mut T,
}

impl<T: Destroy> Owned<T> {
    /// Takes over what `make` creates in `context` by writing its handle; what it runs in, `make` says.
    ///
    /// # Errors
    /// `make`'s own, or the driver has no call that destroys such an object: then nothing is made.
    pub(crate) fn make(
        context: &Context,
        make: impl FnOnce(&mut *mut T) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        // Looked up before making: what was made can then always be destroyed.
        T::destroyer(context.device().driver())?;
        let mut raw = std::ptr::null_mut();
        make(&mut raw)?;
        Ok(Self { context: context.clone(), raw })
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// The driver's handle, valid while this value lives.
    pub(crate) fn raw(&self) -> *mut T {
        self.raw
    }

    /// Destroys the object and returns what the driver said.
    pub(crate) fn close(mut self) -> Result<(), Error> {
        self.destroy()
    }

    fn destroy(&mut self) -> Result<(), Error> {
        // Taken first, so that a second attempt has nothing to destroy.
        let raw = std::mem::replace(&mut self.raw, std::ptr::null_mut());
        if raw.is_null() {
            return Ok(());
        }
        let call = T::destroyer(self.context.device().driver())?;
        apart_from_captures(&self.context, || {
            // SAFETY: the object was made once, by `make`, and is destroyed once.
            check(T::CALL, unsafe { call(raw) }, || format!("{} {raw:p}", T::NAME))
        })
    }
}

impl<T: Destroy> Drop for Owned<T> {
    fn drop(&mut self) {
        if let Err(error) = self.destroy() {
            report_drop_error(&error);
        }
    }
}
