// Made by `cargo xtask bindings` from cuda.h and cudaTypedefs.h of the pinned toolkit. Not to be changed by hand: the table
// of functions is in src/build/bindings.rs.

pub type cuuint32_t = u32;
pub type cuuint64_t = u64;
pub type CUdeviceptr_v2 = ::core::ffi::c_ulonglong;
pub type CUdeviceptr = CUdeviceptr_v2;
pub type CUdevice_v1 = ::core::ffi::c_int;
pub type CUcontext = *mut CUctx_st;
pub type CUmodule = *mut CUmod_st;
pub type CUfunction = *mut CUfunc_st;
pub type CUkernel = *mut CUkern_st;
pub type CUarray = *mut CUarray_st;
pub type CUevent = *mut CUevent_st;
pub type CUstream = *mut CUstream_st;
pub type CUgraph = *mut CUgraph_st;
pub type CUgraphNode = *mut CUgraphNode_st;
pub type CUgraphExec = *mut CUgraphExec_st;
pub type CUmemoryPool = *mut CUmemPoolHandle_st;
pub type CUgraphDeviceNode = *mut CUgraphDeviceUpdatableNode_st;
pub type CUuuid = CUuuid_st;
pub type CUhostFn =
    ::core::option::Option<unsafe extern "C" fn(userData: *mut ::core::ffi::c_void)>;
pub type CUaccessPolicyWindow_v1 = CUaccessPolicyWindow_st;
pub type CUaccessPolicyWindow = CUaccessPolicyWindow_v1;
pub type CUDA_KERNEL_NODE_PARAMS_v2 = CUDA_KERNEL_NODE_PARAMS_v2_st;
pub type CUgraphEdgeData = CUgraphEdgeData_st;
pub type CUlaunchMemSyncDomainMap = CUlaunchMemSyncDomainMap_st;
pub type CUlaunchAttributeValue = CUlaunchAttributeValue_union;
pub type CUlaunchAttribute = CUlaunchAttribute_st;
pub type CUlaunchConfig = CUlaunchConfig_st;
pub type CUoccupancyB2DSize =
    ::core::option::Option<unsafe extern "C" fn(blockSize: ::core::ffi::c_int) -> usize>;
pub type CUDA_MEMCPY3D_v2 = CUDA_MEMCPY3D_st;
pub type CUtensorMap = CUtensorMap_st;
pub type CUmemLocation_v1 = CUmemLocation_st;
pub type CUmemLocation = CUmemLocation_v1;
pub type CUgraphExecUpdateResultInfo_v1 = CUgraphExecUpdateResultInfo_st;
pub type CUgraphExecUpdateResultInfo = CUgraphExecUpdateResultInfo_v1;
pub type CUmemPoolProps_v1 = CUmemPoolProps_st;
pub type PFN_cuInit_v2000 =
    ::core::option::Option<unsafe extern "C" fn(Flags: ::core::ffi::c_uint) -> CUresult>;
pub type PFN_cuDriverGetVersion_v2020 = ::core::option::Option<
    unsafe extern "C" fn(driverVersion: *mut ::core::ffi::c_int) -> CUresult,
>;
pub type PFN_cuDeviceGet_v2000 = ::core::option::Option<
    unsafe extern "C" fn(device: *mut CUdevice_v1, ordinal: ::core::ffi::c_int) -> CUresult,
>;
pub type PFN_cuDeviceGetCount_v2000 =
    ::core::option::Option<unsafe extern "C" fn(count: *mut ::core::ffi::c_int) -> CUresult>;
pub type PFN_cuDeviceGetName_v2000 = ::core::option::Option<
    unsafe extern "C" fn(
        name: *mut ::core::ffi::c_char,
        len: ::core::ffi::c_int,
        dev: CUdevice_v1,
    ) -> CUresult,
>;
pub type PFN_cuDeviceGetUuid_v11040 =
    ::core::option::Option<unsafe extern "C" fn(uuid: *mut CUuuid, dev: CUdevice_v1) -> CUresult>;
pub type PFN_cuDeviceTotalMem_v3020 =
    ::core::option::Option<unsafe extern "C" fn(bytes: *mut usize, dev: CUdevice_v1) -> CUresult>;
pub type PFN_cuDeviceGetAttribute_v2000 = ::core::option::Option<
    unsafe extern "C" fn(
        pi: *mut ::core::ffi::c_int,
        attrib: CUdevice_attribute,
        dev: CUdevice_v1,
    ) -> CUresult,
>;
pub type PFN_cuDevicePrimaryCtxRetain_v7000 = ::core::option::Option<
    unsafe extern "C" fn(pctx: *mut CUcontext, dev: CUdevice_v1) -> CUresult,
>;
pub type PFN_cuDevicePrimaryCtxRelease_v11000 =
    ::core::option::Option<unsafe extern "C" fn(dev: CUdevice_v1) -> CUresult>;
pub type PFN_cuCtxPushCurrent_v4000 =
    ::core::option::Option<unsafe extern "C" fn(ctx: CUcontext) -> CUresult>;
pub type PFN_cuCtxPopCurrent_v4000 =
    ::core::option::Option<unsafe extern "C" fn(pctx: *mut CUcontext) -> CUresult>;
pub type PFN_cuCtxGetCurrent_v4000 =
    ::core::option::Option<unsafe extern "C" fn(pctx: *mut CUcontext) -> CUresult>;
pub type PFN_cuCtxSynchronize_v2000 = ::core::option::Option<unsafe extern "C" fn() -> CUresult>;
pub type PFN_cuCtxGetStreamPriorityRange_v5050 = ::core::option::Option<
    unsafe extern "C" fn(
        leastPriority: *mut ::core::ffi::c_int,
        greatestPriority: *mut ::core::ffi::c_int,
    ) -> CUresult,
>;
pub type PFN_cuModuleLoadDataEx_v2010 = ::core::option::Option<
    unsafe extern "C" fn(
        module: *mut CUmodule,
        image: *const ::core::ffi::c_void,
        numOptions: ::core::ffi::c_uint,
        options: *mut CUjit_option,
        optionValues: *mut *mut ::core::ffi::c_void,
    ) -> CUresult,
>;
pub type PFN_cuModuleUnload_v2000 =
    ::core::option::Option<unsafe extern "C" fn(hmod: CUmodule) -> CUresult>;
pub type PFN_cuModuleGetFunction_v2000 = ::core::option::Option<
    unsafe extern "C" fn(
        hfunc: *mut CUfunction,
        hmod: CUmodule,
        name: *const ::core::ffi::c_char,
    ) -> CUresult,
>;
pub type PFN_cuModuleGetGlobal_v3020 = ::core::option::Option<
    unsafe extern "C" fn(
        dptr: *mut CUdeviceptr_v2,
        bytes: *mut usize,
        hmod: CUmodule,
        name: *const ::core::ffi::c_char,
    ) -> CUresult,
>;
pub type PFN_cuMemGetInfo_v3020 =
    ::core::option::Option<unsafe extern "C" fn(free: *mut usize, total: *mut usize) -> CUresult>;
pub type PFN_cuMemAlloc_v3020 = ::core::option::Option<
    unsafe extern "C" fn(dptr: *mut CUdeviceptr_v2, bytesize: usize) -> CUresult,
>;
pub type PFN_cuMemFree_v3020 =
    ::core::option::Option<unsafe extern "C" fn(dptr: CUdeviceptr_v2) -> CUresult>;
pub type PFN_cuMemFreeHost_v2000 =
    ::core::option::Option<unsafe extern "C" fn(p: *mut ::core::ffi::c_void) -> CUresult>;
pub type PFN_cuMemHostAlloc_v2020 = ::core::option::Option<
    unsafe extern "C" fn(
        pp: *mut *mut ::core::ffi::c_void,
        bytesize: usize,
        Flags: ::core::ffi::c_uint,
    ) -> CUresult,
>;
pub type PFN_cuMemPoolTrimTo_v11020 = ::core::option::Option<
    unsafe extern "C" fn(pool: CUmemoryPool, minBytesToKeep: usize) -> CUresult,
>;
pub type PFN_cuMemPoolSetAttribute_v11020 = ::core::option::Option<
    unsafe extern "C" fn(
        pool: CUmemoryPool,
        attr: CUmemPool_attribute,
        value: *mut ::core::ffi::c_void,
    ) -> CUresult,
>;
pub type PFN_cuMemPoolGetAttribute_v11020 = ::core::option::Option<
    unsafe extern "C" fn(
        pool: CUmemoryPool,
        attr: CUmemPool_attribute,
        value: *mut ::core::ffi::c_void,
    ) -> CUresult,
>;
pub type PFN_cuMemPoolCreate_v11020 = ::core::option::Option<
    unsafe extern "C" fn(pool: *mut CUmemoryPool, poolProps: *const CUmemPoolProps_v1) -> CUresult,
>;
pub type PFN_cuMemPoolDestroy_v11020 =
    ::core::option::Option<unsafe extern "C" fn(pool: CUmemoryPool) -> CUresult>;
pub type PFN_cuPointerGetAttribute_v4000 = ::core::option::Option<
    unsafe extern "C" fn(
        data: *mut ::core::ffi::c_void,
        attribute: CUpointer_attribute,
        ptr: CUdeviceptr_v2,
    ) -> CUresult,
>;
pub type PFN_cuStreamCreateWithPriority_v5050 = ::core::option::Option<
    unsafe extern "C" fn(
        phStream: *mut CUstream,
        flags: ::core::ffi::c_uint,
        priority: ::core::ffi::c_int,
    ) -> CUresult,
>;
pub type PFN_cuThreadExchangeStreamCaptureMode_v10010 =
    ::core::option::Option<unsafe extern "C" fn(mode: *mut CUstreamCaptureMode) -> CUresult>;
pub type PFN_cuStreamDestroy_v4000 =
    ::core::option::Option<unsafe extern "C" fn(hStream: CUstream) -> CUresult>;
pub type PFN_cuEventCreate_v2000 = ::core::option::Option<
    unsafe extern "C" fn(phEvent: *mut CUevent, Flags: ::core::ffi::c_uint) -> CUresult,
>;
pub type PFN_cuEventQuery_v2000 =
    ::core::option::Option<unsafe extern "C" fn(hEvent: CUevent) -> CUresult>;
pub type PFN_cuEventSynchronize_v2000 =
    ::core::option::Option<unsafe extern "C" fn(hEvent: CUevent) -> CUresult>;
pub type PFN_cuEventDestroy_v4000 =
    ::core::option::Option<unsafe extern "C" fn(hEvent: CUevent) -> CUresult>;
pub type PFN_cuEventElapsedTime_v2000 = ::core::option::Option<
    unsafe extern "C" fn(pMilliseconds: *mut f32, hStart: CUevent, hEnd: CUevent) -> CUresult,
>;
pub type PFN_cuFuncGetAttribute_v2020 = ::core::option::Option<
    unsafe extern "C" fn(
        pi: *mut ::core::ffi::c_int,
        attrib: CUfunction_attribute,
        hfunc: CUfunction,
    ) -> CUresult,
>;
pub type PFN_cuFuncSetAttribute_v9000 = ::core::option::Option<
    unsafe extern "C" fn(
        hfunc: CUfunction,
        attrib: CUfunction_attribute,
        value: ::core::ffi::c_int,
    ) -> CUresult,
>;
pub type PFN_cuFuncGetParamInfo_v12040 = ::core::option::Option<
    unsafe extern "C" fn(
        func: CUfunction,
        paramIndex: usize,
        paramOffset: *mut usize,
        paramSize: *mut usize,
    ) -> CUresult,
>;
pub type PFN_cuGraphCreate_v10000 = ::core::option::Option<
    unsafe extern "C" fn(phGraph: *mut CUgraph, flags: ::core::ffi::c_uint) -> CUresult,
>;
pub type PFN_cuGraphAddKernelNode_v12000 = ::core::option::Option<
    unsafe extern "C" fn(
        phGraphNode: *mut CUgraphNode,
        hGraph: CUgraph,
        dependencies: *const CUgraphNode,
        numDependencies: usize,
        nodeParams: *const CUDA_KERNEL_NODE_PARAMS_v2,
    ) -> CUresult,
>;
pub type PFN_cuGraphAddMemcpyNode_v10000 = ::core::option::Option<
    unsafe extern "C" fn(
        phGraphNode: *mut CUgraphNode,
        hGraph: CUgraph,
        dependencies: *const CUgraphNode,
        numDependencies: usize,
        copyParams: *const CUDA_MEMCPY3D_v2,
        ctx: CUcontext,
    ) -> CUresult,
>;
pub type PFN_cuGraphGetNodes_v10000 = ::core::option::Option<
    unsafe extern "C" fn(
        hGraph: CUgraph,
        nodes: *mut CUgraphNode,
        numNodes: *mut usize,
    ) -> CUresult,
>;
pub type PFN_cuGraphAddDependencies_v12030 = ::core::option::Option<
    unsafe extern "C" fn(
        hGraph: CUgraph,
        from: *const CUgraphNode,
        to: *const CUgraphNode,
        edgeData: *const CUgraphEdgeData,
        numDependencies: usize,
    ) -> CUresult,
>;
pub type PFN_cuGraphInstantiateWithFlags_v11040 = ::core::option::Option<
    unsafe extern "C" fn(
        phGraphExec: *mut CUgraphExec,
        hGraph: CUgraph,
        flags: ::core::ffi::c_ulonglong,
    ) -> CUresult,
>;
pub type PFN_cuGraphExecKernelNodeSetParams_v12000 = ::core::option::Option<
    unsafe extern "C" fn(
        hGraphExec: CUgraphExec,
        hNode: CUgraphNode,
        nodeParams: *const CUDA_KERNEL_NODE_PARAMS_v2,
    ) -> CUresult,
>;
pub type PFN_cuGraphExecMemcpyNodeSetParams_v10020 = ::core::option::Option<
    unsafe extern "C" fn(
        hGraphExec: CUgraphExec,
        hNode: CUgraphNode,
        copyParams: *const CUDA_MEMCPY3D_v2,
        ctx: CUcontext,
    ) -> CUresult,
>;
pub type PFN_cuGraphExecDestroy_v10000 =
    ::core::option::Option<unsafe extern "C" fn(hGraphExec: CUgraphExec) -> CUresult>;
pub type PFN_cuGraphDestroy_v10000 =
    ::core::option::Option<unsafe extern "C" fn(hGraph: CUgraph) -> CUresult>;
pub type PFN_cuGraphExecUpdate_v12000 = ::core::option::Option<
    unsafe extern "C" fn(
        hGraphExec: CUgraphExec,
        hGraph: CUgraph,
        resultInfo: *mut CUgraphExecUpdateResultInfo,
    ) -> CUresult,
>;
pub type PFN_cuGraphNodeSetEnabled_v11060 = ::core::option::Option<
    unsafe extern "C" fn(
        hGraphExec: CUgraphExec,
        hNode: CUgraphNode,
        isEnabled: ::core::ffi::c_uint,
    ) -> CUresult,
>;
pub type PFN_cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags_v7000 = ::core::option::Option<
    unsafe extern "C" fn(
        numBlocks: *mut ::core::ffi::c_int,
        func: CUfunction,
        blockSize: ::core::ffi::c_int,
        dynamicSMemSize: usize,
        flags: ::core::ffi::c_uint,
    ) -> CUresult,
>;
pub type PFN_cuOccupancyMaxPotentialBlockSize_v6050 = ::core::option::Option<
    unsafe extern "C" fn(
        minGridSize: *mut ::core::ffi::c_int,
        blockSize: *mut ::core::ffi::c_int,
        func: CUfunction,
        blockSizeToDynamicSMemSize: CUoccupancyB2DSize,
        dynamicSMemSize: usize,
        blockSizeLimit: ::core::ffi::c_int,
    ) -> CUresult,
>;
pub type PFN_cuOccupancyAvailableDynamicSMemPerBlock_v10020 = ::core::option::Option<
    unsafe extern "C" fn(
        dynamicSmemSize: *mut usize,
        func: CUfunction,
        numBlocks: ::core::ffi::c_int,
        blockSize: ::core::ffi::c_int,
    ) -> CUresult,
>;
pub type PFN_cuOccupancyMaxActiveClusters_v11070 = ::core::option::Option<
    unsafe extern "C" fn(
        numClusters: *mut ::core::ffi::c_int,
        func: CUfunction,
        config: *const CUlaunchConfig,
    ) -> CUresult,
>;
pub type PFN_cuTensorMapEncodeTiled_v12000 = ::core::option::Option<
    unsafe extern "C" fn(
        tensorMap: *mut CUtensorMap,
        tensorDataType: CUtensorMapDataType,
        tensorRank: cuuint32_t,
        globalAddress: *mut ::core::ffi::c_void,
        globalDim: *const cuuint64_t,
        globalStrides: *const cuuint64_t,
        boxDim: *const cuuint32_t,
        elementStrides: *const cuuint32_t,
        interleave: CUtensorMapInterleave,
        swizzle: CUtensorMapSwizzle,
        l2Promotion: CUtensorMapL2promotion,
        oobFill: CUtensorMapFloatOOBfill,
    ) -> CUresult,
>;
pub type PFN_cuTensorMapEncodeIm2col_v12000 = ::core::option::Option<
    unsafe extern "C" fn(
        tensorMap: *mut CUtensorMap,
        tensorDataType: CUtensorMapDataType,
        tensorRank: cuuint32_t,
        globalAddress: *mut ::core::ffi::c_void,
        globalDim: *const cuuint64_t,
        globalStrides: *const cuuint64_t,
        pixelBoxLowerCorner: *const ::core::ffi::c_int,
        pixelBoxUpperCorner: *const ::core::ffi::c_int,
        channelsPerPixel: cuuint32_t,
        pixelsPerColumn: cuuint32_t,
        elementStrides: *const cuuint32_t,
        interleave: CUtensorMapInterleave,
        swizzle: CUtensorMapSwizzle,
        l2Promotion: CUtensorMapL2promotion,
        oobFill: CUtensorMapFloatOOBfill,
    ) -> CUresult,
>;
pub type PFN_cuTensorMapReplaceAddress_v12000 = ::core::option::Option<
    unsafe extern "C" fn(
        tensorMap: *mut CUtensorMap,
        globalAddress: *mut ::core::ffi::c_void,
    ) -> CUresult,
>;
pub type PFN_cuTensorMapEncodeIm2colWide_v12080 = ::core::option::Option<
    unsafe extern "C" fn(
        tensorMap: *mut CUtensorMap,
        tensorDataType: CUtensorMapDataType,
        tensorRank: cuuint32_t,
        globalAddress: *mut ::core::ffi::c_void,
        globalDim: *const cuuint64_t,
        globalStrides: *const cuuint64_t,
        pixelBoxLowerCornerWidth: ::core::ffi::c_int,
        pixelBoxUpperCornerWidth: ::core::ffi::c_int,
        channelsPerPixel: cuuint32_t,
        pixelsPerColumn: cuuint32_t,
        elementStrides: *const cuuint32_t,
        interleave: CUtensorMapInterleave,
        mode: CUtensorMapIm2ColWideMode,
        swizzle: CUtensorMapSwizzle,
        l2Promotion: CUtensorMapL2promotion,
        oobFill: CUtensorMapFloatOOBfill,
    ) -> CUresult,
>;
pub type PFN_cuGetProcAddress_v12000 = ::core::option::Option<
    unsafe extern "C" fn(
        symbol: *const ::core::ffi::c_char,
        pfn: *mut *mut ::core::ffi::c_void,
        driverVersion: ::core::ffi::c_int,
        flags: cuuint64_t,
        symbolFound: *mut CUdriverProcAddressQueryResult,
    ) -> CUresult,
>;
pub type PFN_cuMemcpyHtoDAsync_v3020 = ::core::option::Option<
    unsafe extern "C" fn(
        dstDevice: CUdeviceptr_v2,
        srcHost: *const ::core::ffi::c_void,
        ByteCount: usize,
        hStream: CUstream,
    ) -> CUresult,
>;
pub type PFN_cuMemcpyDtoHAsync_v3020 = ::core::option::Option<
    unsafe extern "C" fn(
        dstHost: *mut ::core::ffi::c_void,
        srcDevice: CUdeviceptr_v2,
        ByteCount: usize,
        hStream: CUstream,
    ) -> CUresult,
>;
pub type PFN_cuMemcpyDtoDAsync_v3020 = ::core::option::Option<
    unsafe extern "C" fn(
        dstDevice: CUdeviceptr_v2,
        srcDevice: CUdeviceptr_v2,
        ByteCount: usize,
        hStream: CUstream,
    ) -> CUresult,
>;
pub type PFN_cuMemsetD8Async_v3020 = ::core::option::Option<
    unsafe extern "C" fn(
        dstDevice: CUdeviceptr_v2,
        uc: ::core::ffi::c_uchar,
        N: usize,
        hStream: CUstream,
    ) -> CUresult,
>;
pub type PFN_cuMemsetD32Async_v3020 = ::core::option::Option<
    unsafe extern "C" fn(
        dstDevice: CUdeviceptr_v2,
        ui: ::core::ffi::c_uint,
        N: usize,
        hStream: CUstream,
    ) -> CUresult,
>;
pub type PFN_cuStreamGetPriority_v5050 = ::core::option::Option<
    unsafe extern "C" fn(hStream: CUstream, priority: *mut ::core::ffi::c_int) -> CUresult,
>;
pub type PFN_cuStreamWaitEvent_v3020 = ::core::option::Option<
    unsafe extern "C" fn(
        hStream: CUstream,
        hEvent: CUevent,
        Flags: ::core::ffi::c_uint,
    ) -> CUresult,
>;
pub type PFN_cuStreamQuery_v2000 =
    ::core::option::Option<unsafe extern "C" fn(hStream: CUstream) -> CUresult>;
pub type PFN_cuStreamSynchronize_v2000 =
    ::core::option::Option<unsafe extern "C" fn(hStream: CUstream) -> CUresult>;
pub type PFN_cuEventRecord_v2000 =
    ::core::option::Option<unsafe extern "C" fn(hEvent: CUevent, hStream: CUstream) -> CUresult>;
pub type PFN_cuLaunchKernelEx_v11060 = ::core::option::Option<
    unsafe extern "C" fn(
        config: *const CUlaunchConfig,
        f: CUfunction,
        kernelParams: *mut *mut ::core::ffi::c_void,
        extra: *mut *mut ::core::ffi::c_void,
    ) -> CUresult,
>;
pub type PFN_cuLaunchHostFunc_v10000 = ::core::option::Option<
    unsafe extern "C" fn(
        hStream: CUstream,
        fn_: CUhostFn,
        userData: *mut ::core::ffi::c_void,
    ) -> CUresult,
>;
pub type PFN_cuStreamBeginCapture_v10010 = ::core::option::Option<
    unsafe extern "C" fn(hStream: CUstream, mode: CUstreamCaptureMode) -> CUresult,
>;
pub type PFN_cuStreamEndCapture_v10000 = ::core::option::Option<
    unsafe extern "C" fn(hStream: CUstream, phGraph: *mut CUgraph) -> CUresult,
>;
pub type PFN_cuStreamIsCapturing_v10000 = ::core::option::Option<
    unsafe extern "C" fn(hStream: CUstream, captureStatus: *mut CUstreamCaptureStatus) -> CUresult,
>;
pub type PFN_cuGraphUpload_v11010 = ::core::option::Option<
    unsafe extern "C" fn(hGraph: CUgraphExec, hStream: CUstream) -> CUresult,
>;
pub type PFN_cuGraphLaunch_v10000 = ::core::option::Option<
    unsafe extern "C" fn(hGraph: CUgraphExec, hStream: CUstream) -> CUresult,
>;
pub type PFN_cuMemFreeAsync_v11020 = ::core::option::Option<
    unsafe extern "C" fn(dptr: CUdeviceptr_v2, hStream: CUstream) -> CUresult,
>;
pub type PFN_cuMemAllocFromPoolAsync_v11020 = ::core::option::Option<
    unsafe extern "C" fn(
        dptr: *mut CUdeviceptr_v2,
        bytesize: usize,
        pool: CUmemoryPool,
        hStream: CUstream,
    ) -> CUresult,
>;
#[repr(C)]
#[derive(Debug)]
pub struct CUctx_st {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct CUmod_st {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct CUfunc_st {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct CUkern_st {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct CUarray_st {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct CUevent_st {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct CUstream_st {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct CUgraph_st {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct CUgraphNode_st {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct CUgraphExec_st {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct CUmemPoolHandle_st {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct CUgraphDeviceUpdatableNode_st {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUuuid_st {
    pub bytes: [::core::ffi::c_char; 16usize],
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUstream_flags(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUevent_flags(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUoccupancy_flags(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUdevice_attribute(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUpointer_attribute(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUfunction_attribute(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUmemorytype(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUjit_option(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUaccessProperty(pub ::core::ffi::c_uint);
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialOrd, PartialEq)]
pub struct CUaccessPolicyWindow_st {
    pub base_ptr: *mut ::core::ffi::c_void,
    pub num_bytes: usize,
    pub hitRatio: f32,
    pub hitProp: CUaccessProperty,
    pub missProp: CUaccessProperty,
}
#[repr(C)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUDA_KERNEL_NODE_PARAMS_v2_st {
    pub func: CUfunction,
    pub gridDimX: ::core::ffi::c_uint,
    pub gridDimY: ::core::ffi::c_uint,
    pub gridDimZ: ::core::ffi::c_uint,
    pub blockDimX: ::core::ffi::c_uint,
    pub blockDimY: ::core::ffi::c_uint,
    pub blockDimZ: ::core::ffi::c_uint,
    pub sharedMemBytes: ::core::ffi::c_uint,
    pub kernelParams: *mut *mut ::core::ffi::c_void,
    pub extra: *mut *mut ::core::ffi::c_void,
    pub kern: CUkernel,
    pub ctx: CUcontext,
}
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUgraphEdgeData_st {
    pub from_port: ::core::ffi::c_uchar,
    pub to_port: ::core::ffi::c_uchar,
    pub type_: ::core::ffi::c_uchar,
    pub reserved: [::core::ffi::c_uchar; 5usize],
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUsynchronizationPolicy(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUclusterSchedulingPolicy(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUlaunchMemSyncDomain(pub ::core::ffi::c_uint);
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUlaunchMemSyncDomainMap_st {
    pub default_: ::core::ffi::c_uchar,
    pub remote: ::core::ffi::c_uchar,
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUlaunchAttributeID(pub ::core::ffi::c_uint);
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUlaunchAttributeValue_union__bindgen_ty_1 {
    pub x: ::core::ffi::c_uint,
    pub y: ::core::ffi::c_uint,
    pub z: ::core::ffi::c_uint,
}
#[repr(C)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUlaunchAttributeValue_union__bindgen_ty_2 {
    pub event: CUevent,
    pub flags: ::core::ffi::c_int,
    pub triggerAtBlockStart: ::core::ffi::c_int,
}
#[repr(C)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUlaunchAttributeValue_union__bindgen_ty_3 {
    pub event: CUevent,
    pub flags: ::core::ffi::c_int,
}
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUlaunchAttributeValue_union__bindgen_ty_4 {
    pub x: ::core::ffi::c_uint,
    pub y: ::core::ffi::c_uint,
    pub z: ::core::ffi::c_uint,
}
#[repr(C)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUlaunchAttributeValue_union__bindgen_ty_5 {
    pub deviceUpdatable: ::core::ffi::c_int,
    pub devNode: CUgraphDeviceNode,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub struct CUlaunchAttribute_st {
    pub id: CUlaunchAttributeID,
    pub pad: [::core::ffi::c_char; 4usize],
    pub value: CUlaunchAttributeValue,
}
#[repr(C)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUlaunchConfig_st {
    pub gridDimX: ::core::ffi::c_uint,
    pub gridDimY: ::core::ffi::c_uint,
    pub gridDimZ: ::core::ffi::c_uint,
    pub blockDimX: ::core::ffi::c_uint,
    pub blockDimY: ::core::ffi::c_uint,
    pub blockDimZ: ::core::ffi::c_uint,
    pub sharedMemBytes: ::core::ffi::c_uint,
    pub hStream: CUstream,
    pub attrs: *mut CUlaunchAttribute,
    pub numAttrs: ::core::ffi::c_uint,
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUstreamCaptureStatus(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUstreamCaptureMode(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUdriverProcAddressQueryResult(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[must_use]
#[derive(Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUresult(pub ::core::ffi::c_uint);
#[repr(C)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUDA_MEMCPY3D_st {
    pub srcXInBytes: usize,
    pub srcY: usize,
    pub srcZ: usize,
    pub srcLOD: usize,
    pub srcMemoryType: CUmemorytype,
    pub srcHost: *const ::core::ffi::c_void,
    pub srcDevice: CUdeviceptr,
    pub srcArray: CUarray,
    pub reserved0: *mut ::core::ffi::c_void,
    pub srcPitch: usize,
    pub srcHeight: usize,
    pub dstXInBytes: usize,
    pub dstY: usize,
    pub dstZ: usize,
    pub dstLOD: usize,
    pub dstMemoryType: CUmemorytype,
    pub dstHost: *mut ::core::ffi::c_void,
    pub dstDevice: CUdeviceptr,
    pub dstArray: CUarray,
    pub reserved1: *mut ::core::ffi::c_void,
    pub dstPitch: usize,
    pub dstHeight: usize,
    pub WidthInBytes: usize,
    pub Height: usize,
    pub Depth: usize,
}
#[repr(C)]
#[repr(align(128))]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUtensorMap_st {
    pub opaque: [cuuint64_t; 16usize],
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUtensorMapDataType(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUtensorMapInterleave(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUtensorMapSwizzle(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUtensorMapL2promotion(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUtensorMapFloatOOBfill(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUtensorMapIm2ColWideMode(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUmemAllocationHandleType(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUmemLocationType(pub ::core::ffi::c_uint);
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUmemAllocationType(pub ::core::ffi::c_uint);
#[repr(C)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUmemLocation_st {
    pub type_: CUmemLocationType,
    pub id: ::core::ffi::c_int,
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUgraphExecUpdateResult(pub ::core::ffi::c_uint);
#[repr(C)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUgraphExecUpdateResultInfo_st {
    pub result: CUgraphExecUpdateResult,
    pub errorNode: CUgraphNode,
    pub errorFromNode: CUgraphNode,
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUmemPool_attribute(pub ::core::ffi::c_uint);
#[repr(C)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUmemPoolProps_st {
    pub allocType: CUmemAllocationType,
    pub handleTypes: CUmemAllocationHandleType,
    pub location: CUmemLocation,
    pub win32SecurityAttributes: *mut ::core::ffi::c_void,
    pub maxSize: usize,
    pub usage: ::core::ffi::c_ushort,
    pub reserved: [::core::ffi::c_uchar; 54usize],
}
#[repr(transparent)]
#[derive(Debug, Copy, Clone, Hash, PartialOrd, Ord, PartialEq, Eq)]
pub struct CUgraphInstantiate_flags(pub ::core::ffi::c_uint);
pub const CUDA_VERSION: u32 = 13000;
pub const CU_MEMHOSTALLOC_PORTABLE: u32 = 1;
pub const CU_MEMHOSTALLOC_DEVICEMAP: u32 = 2;
pub const CU_MEMHOSTALLOC_WRITECOMBINED: u32 = 4;
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUuuid_st"][::core::mem::size_of::<CUuuid_st>() - 16usize];
    ["Alignment of CUuuid_st"][::core::mem::align_of::<CUuuid_st>() - 1usize];
    ["Offset of field: CUuuid_st::bytes"][::core::mem::offset_of!(CUuuid_st, bytes) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUaccessPolicyWindow_st"]
        [::core::mem::size_of::<CUaccessPolicyWindow_st>() - 32usize];
    ["Alignment of CUaccessPolicyWindow_st"]
        [::core::mem::align_of::<CUaccessPolicyWindow_st>() - 8usize];
    ["Offset of field: CUaccessPolicyWindow_st::base_ptr"]
        [::core::mem::offset_of!(CUaccessPolicyWindow_st, base_ptr) - 0usize];
    ["Offset of field: CUaccessPolicyWindow_st::num_bytes"]
        [::core::mem::offset_of!(CUaccessPolicyWindow_st, num_bytes) - 8usize];
    ["Offset of field: CUaccessPolicyWindow_st::hitRatio"]
        [::core::mem::offset_of!(CUaccessPolicyWindow_st, hitRatio) - 16usize];
    ["Offset of field: CUaccessPolicyWindow_st::hitProp"]
        [::core::mem::offset_of!(CUaccessPolicyWindow_st, hitProp) - 20usize];
    ["Offset of field: CUaccessPolicyWindow_st::missProp"]
        [::core::mem::offset_of!(CUaccessPolicyWindow_st, missProp) - 24usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUDA_KERNEL_NODE_PARAMS_v2_st"]
        [::core::mem::size_of::<CUDA_KERNEL_NODE_PARAMS_v2_st>() - 72usize];
    ["Alignment of CUDA_KERNEL_NODE_PARAMS_v2_st"]
        [::core::mem::align_of::<CUDA_KERNEL_NODE_PARAMS_v2_st>() - 8usize];
    ["Offset of field: CUDA_KERNEL_NODE_PARAMS_v2_st::func"]
        [::core::mem::offset_of!(CUDA_KERNEL_NODE_PARAMS_v2_st, func) - 0usize];
    ["Offset of field: CUDA_KERNEL_NODE_PARAMS_v2_st::gridDimX"]
        [::core::mem::offset_of!(CUDA_KERNEL_NODE_PARAMS_v2_st, gridDimX) - 8usize];
    ["Offset of field: CUDA_KERNEL_NODE_PARAMS_v2_st::gridDimY"]
        [::core::mem::offset_of!(CUDA_KERNEL_NODE_PARAMS_v2_st, gridDimY) - 12usize];
    ["Offset of field: CUDA_KERNEL_NODE_PARAMS_v2_st::gridDimZ"]
        [::core::mem::offset_of!(CUDA_KERNEL_NODE_PARAMS_v2_st, gridDimZ) - 16usize];
    ["Offset of field: CUDA_KERNEL_NODE_PARAMS_v2_st::blockDimX"]
        [::core::mem::offset_of!(CUDA_KERNEL_NODE_PARAMS_v2_st, blockDimX) - 20usize];
    ["Offset of field: CUDA_KERNEL_NODE_PARAMS_v2_st::blockDimY"]
        [::core::mem::offset_of!(CUDA_KERNEL_NODE_PARAMS_v2_st, blockDimY) - 24usize];
    ["Offset of field: CUDA_KERNEL_NODE_PARAMS_v2_st::blockDimZ"]
        [::core::mem::offset_of!(CUDA_KERNEL_NODE_PARAMS_v2_st, blockDimZ) - 28usize];
    ["Offset of field: CUDA_KERNEL_NODE_PARAMS_v2_st::sharedMemBytes"]
        [::core::mem::offset_of!(CUDA_KERNEL_NODE_PARAMS_v2_st, sharedMemBytes) - 32usize];
    ["Offset of field: CUDA_KERNEL_NODE_PARAMS_v2_st::kernelParams"]
        [::core::mem::offset_of!(CUDA_KERNEL_NODE_PARAMS_v2_st, kernelParams) - 40usize];
    ["Offset of field: CUDA_KERNEL_NODE_PARAMS_v2_st::extra"]
        [::core::mem::offset_of!(CUDA_KERNEL_NODE_PARAMS_v2_st, extra) - 48usize];
    ["Offset of field: CUDA_KERNEL_NODE_PARAMS_v2_st::kern"]
        [::core::mem::offset_of!(CUDA_KERNEL_NODE_PARAMS_v2_st, kern) - 56usize];
    ["Offset of field: CUDA_KERNEL_NODE_PARAMS_v2_st::ctx"]
        [::core::mem::offset_of!(CUDA_KERNEL_NODE_PARAMS_v2_st, ctx) - 64usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUgraphEdgeData_st"][::core::mem::size_of::<CUgraphEdgeData_st>() - 8usize];
    ["Alignment of CUgraphEdgeData_st"][::core::mem::align_of::<CUgraphEdgeData_st>() - 1usize];
    ["Offset of field: CUgraphEdgeData_st::from_port"]
        [::core::mem::offset_of!(CUgraphEdgeData_st, from_port) - 0usize];
    ["Offset of field: CUgraphEdgeData_st::to_port"]
        [::core::mem::offset_of!(CUgraphEdgeData_st, to_port) - 1usize];
    ["Offset of field: CUgraphEdgeData_st::type_"]
        [::core::mem::offset_of!(CUgraphEdgeData_st, type_) - 2usize];
    ["Offset of field: CUgraphEdgeData_st::reserved"]
        [::core::mem::offset_of!(CUgraphEdgeData_st, reserved) - 3usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUlaunchMemSyncDomainMap_st"]
        [::core::mem::size_of::<CUlaunchMemSyncDomainMap_st>() - 2usize];
    ["Alignment of CUlaunchMemSyncDomainMap_st"]
        [::core::mem::align_of::<CUlaunchMemSyncDomainMap_st>() - 1usize];
    ["Offset of field: CUlaunchMemSyncDomainMap_st::default_"]
        [::core::mem::offset_of!(CUlaunchMemSyncDomainMap_st, default_) - 0usize];
    ["Offset of field: CUlaunchMemSyncDomainMap_st::remote"]
        [::core::mem::offset_of!(CUlaunchMemSyncDomainMap_st, remote) - 1usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUlaunchAttributeValue_union__bindgen_ty_1"]
        [::core::mem::size_of::<CUlaunchAttributeValue_union__bindgen_ty_1>() - 12usize];
    ["Alignment of CUlaunchAttributeValue_union__bindgen_ty_1"]
        [::core::mem::align_of::<CUlaunchAttributeValue_union__bindgen_ty_1>() - 4usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_1::x"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union__bindgen_ty_1, x) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_1::y"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union__bindgen_ty_1, y) - 4usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_1::z"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union__bindgen_ty_1, z) - 8usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUlaunchAttributeValue_union__bindgen_ty_2"]
        [::core::mem::size_of::<CUlaunchAttributeValue_union__bindgen_ty_2>() - 16usize];
    ["Alignment of CUlaunchAttributeValue_union__bindgen_ty_2"]
        [::core::mem::align_of::<CUlaunchAttributeValue_union__bindgen_ty_2>() - 8usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_2::event"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union__bindgen_ty_2, event) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_2::flags"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union__bindgen_ty_2, flags) - 8usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_2::triggerAtBlockStart"][::core::mem::offset_of!(
        CUlaunchAttributeValue_union__bindgen_ty_2,
        triggerAtBlockStart
    )
        - 12usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUlaunchAttributeValue_union__bindgen_ty_3"]
        [::core::mem::size_of::<CUlaunchAttributeValue_union__bindgen_ty_3>() - 16usize];
    ["Alignment of CUlaunchAttributeValue_union__bindgen_ty_3"]
        [::core::mem::align_of::<CUlaunchAttributeValue_union__bindgen_ty_3>() - 8usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_3::event"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union__bindgen_ty_3, event) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_3::flags"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union__bindgen_ty_3, flags) - 8usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUlaunchAttributeValue_union__bindgen_ty_4"]
        [::core::mem::size_of::<CUlaunchAttributeValue_union__bindgen_ty_4>() - 12usize];
    ["Alignment of CUlaunchAttributeValue_union__bindgen_ty_4"]
        [::core::mem::align_of::<CUlaunchAttributeValue_union__bindgen_ty_4>() - 4usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_4::x"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union__bindgen_ty_4, x) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_4::y"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union__bindgen_ty_4, y) - 4usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_4::z"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union__bindgen_ty_4, z) - 8usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUlaunchAttributeValue_union__bindgen_ty_5"]
        [::core::mem::size_of::<CUlaunchAttributeValue_union__bindgen_ty_5>() - 16usize];
    ["Alignment of CUlaunchAttributeValue_union__bindgen_ty_5"]
        [::core::mem::align_of::<CUlaunchAttributeValue_union__bindgen_ty_5>() - 8usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_5::deviceUpdatable"][::core::mem::offset_of!(
        CUlaunchAttributeValue_union__bindgen_ty_5,
        deviceUpdatable
    ) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union__bindgen_ty_5::devNode"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union__bindgen_ty_5, devNode) - 8usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUlaunchAttributeValue_union"]
        [::core::mem::size_of::<CUlaunchAttributeValue_union>() - 64usize];
    ["Alignment of CUlaunchAttributeValue_union"]
        [::core::mem::align_of::<CUlaunchAttributeValue_union>() - 8usize];
    ["Offset of field: CUlaunchAttributeValue_union::pad"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, pad) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::accessPolicyWindow"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, accessPolicyWindow) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::cooperative"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, cooperative) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::syncPolicy"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, syncPolicy) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::clusterDim"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, clusterDim) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::clusterSchedulingPolicyPreference"][::core::mem::offset_of!(
        CUlaunchAttributeValue_union,
        clusterSchedulingPolicyPreference
    )
        - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::programmaticStreamSerializationAllowed"][::core::mem::offset_of!(
        CUlaunchAttributeValue_union,
        programmaticStreamSerializationAllowed
    )
        - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::programmaticEvent"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, programmaticEvent) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::launchCompletionEvent"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, launchCompletionEvent) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::priority"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, priority) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::memSyncDomainMap"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, memSyncDomainMap) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::memSyncDomain"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, memSyncDomain) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::preferredClusterDim"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, preferredClusterDim) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::deviceUpdatableKernelNode"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, deviceUpdatableKernelNode) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::sharedMemCarveout"]
        [::core::mem::offset_of!(CUlaunchAttributeValue_union, sharedMemCarveout) - 0usize];
    ["Offset of field: CUlaunchAttributeValue_union::nvlinkUtilCentricScheduling"][::core::mem::offset_of!(
        CUlaunchAttributeValue_union,
        nvlinkUtilCentricScheduling
    ) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUlaunchAttribute_st"][::core::mem::size_of::<CUlaunchAttribute_st>() - 72usize];
    ["Alignment of CUlaunchAttribute_st"][::core::mem::align_of::<CUlaunchAttribute_st>() - 8usize];
    ["Offset of field: CUlaunchAttribute_st::id"]
        [::core::mem::offset_of!(CUlaunchAttribute_st, id) - 0usize];
    ["Offset of field: CUlaunchAttribute_st::pad"]
        [::core::mem::offset_of!(CUlaunchAttribute_st, pad) - 4usize];
    ["Offset of field: CUlaunchAttribute_st::value"]
        [::core::mem::offset_of!(CUlaunchAttribute_st, value) - 8usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUlaunchConfig_st"][::core::mem::size_of::<CUlaunchConfig_st>() - 56usize];
    ["Alignment of CUlaunchConfig_st"][::core::mem::align_of::<CUlaunchConfig_st>() - 8usize];
    ["Offset of field: CUlaunchConfig_st::gridDimX"]
        [::core::mem::offset_of!(CUlaunchConfig_st, gridDimX) - 0usize];
    ["Offset of field: CUlaunchConfig_st::gridDimY"]
        [::core::mem::offset_of!(CUlaunchConfig_st, gridDimY) - 4usize];
    ["Offset of field: CUlaunchConfig_st::gridDimZ"]
        [::core::mem::offset_of!(CUlaunchConfig_st, gridDimZ) - 8usize];
    ["Offset of field: CUlaunchConfig_st::blockDimX"]
        [::core::mem::offset_of!(CUlaunchConfig_st, blockDimX) - 12usize];
    ["Offset of field: CUlaunchConfig_st::blockDimY"]
        [::core::mem::offset_of!(CUlaunchConfig_st, blockDimY) - 16usize];
    ["Offset of field: CUlaunchConfig_st::blockDimZ"]
        [::core::mem::offset_of!(CUlaunchConfig_st, blockDimZ) - 20usize];
    ["Offset of field: CUlaunchConfig_st::sharedMemBytes"]
        [::core::mem::offset_of!(CUlaunchConfig_st, sharedMemBytes) - 24usize];
    ["Offset of field: CUlaunchConfig_st::hStream"]
        [::core::mem::offset_of!(CUlaunchConfig_st, hStream) - 32usize];
    ["Offset of field: CUlaunchConfig_st::attrs"]
        [::core::mem::offset_of!(CUlaunchConfig_st, attrs) - 40usize];
    ["Offset of field: CUlaunchConfig_st::numAttrs"]
        [::core::mem::offset_of!(CUlaunchConfig_st, numAttrs) - 48usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUDA_MEMCPY3D_st"][::core::mem::size_of::<CUDA_MEMCPY3D_st>() - 200usize];
    ["Alignment of CUDA_MEMCPY3D_st"][::core::mem::align_of::<CUDA_MEMCPY3D_st>() - 8usize];
    ["Offset of field: CUDA_MEMCPY3D_st::srcXInBytes"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, srcXInBytes) - 0usize];
    ["Offset of field: CUDA_MEMCPY3D_st::srcY"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, srcY) - 8usize];
    ["Offset of field: CUDA_MEMCPY3D_st::srcZ"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, srcZ) - 16usize];
    ["Offset of field: CUDA_MEMCPY3D_st::srcLOD"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, srcLOD) - 24usize];
    ["Offset of field: CUDA_MEMCPY3D_st::srcMemoryType"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, srcMemoryType) - 32usize];
    ["Offset of field: CUDA_MEMCPY3D_st::srcHost"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, srcHost) - 40usize];
    ["Offset of field: CUDA_MEMCPY3D_st::srcDevice"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, srcDevice) - 48usize];
    ["Offset of field: CUDA_MEMCPY3D_st::srcArray"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, srcArray) - 56usize];
    ["Offset of field: CUDA_MEMCPY3D_st::reserved0"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, reserved0) - 64usize];
    ["Offset of field: CUDA_MEMCPY3D_st::srcPitch"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, srcPitch) - 72usize];
    ["Offset of field: CUDA_MEMCPY3D_st::srcHeight"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, srcHeight) - 80usize];
    ["Offset of field: CUDA_MEMCPY3D_st::dstXInBytes"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, dstXInBytes) - 88usize];
    ["Offset of field: CUDA_MEMCPY3D_st::dstY"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, dstY) - 96usize];
    ["Offset of field: CUDA_MEMCPY3D_st::dstZ"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, dstZ) - 104usize];
    ["Offset of field: CUDA_MEMCPY3D_st::dstLOD"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, dstLOD) - 112usize];
    ["Offset of field: CUDA_MEMCPY3D_st::dstMemoryType"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, dstMemoryType) - 120usize];
    ["Offset of field: CUDA_MEMCPY3D_st::dstHost"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, dstHost) - 128usize];
    ["Offset of field: CUDA_MEMCPY3D_st::dstDevice"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, dstDevice) - 136usize];
    ["Offset of field: CUDA_MEMCPY3D_st::dstArray"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, dstArray) - 144usize];
    ["Offset of field: CUDA_MEMCPY3D_st::reserved1"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, reserved1) - 152usize];
    ["Offset of field: CUDA_MEMCPY3D_st::dstPitch"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, dstPitch) - 160usize];
    ["Offset of field: CUDA_MEMCPY3D_st::dstHeight"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, dstHeight) - 168usize];
    ["Offset of field: CUDA_MEMCPY3D_st::WidthInBytes"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, WidthInBytes) - 176usize];
    ["Offset of field: CUDA_MEMCPY3D_st::Height"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, Height) - 184usize];
    ["Offset of field: CUDA_MEMCPY3D_st::Depth"]
        [::core::mem::offset_of!(CUDA_MEMCPY3D_st, Depth) - 192usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUtensorMap_st"][::core::mem::size_of::<CUtensorMap_st>() - 128usize];
    ["Alignment of CUtensorMap_st"][::core::mem::align_of::<CUtensorMap_st>() - 128usize];
    ["Offset of field: CUtensorMap_st::opaque"]
        [::core::mem::offset_of!(CUtensorMap_st, opaque) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUmemLocation_st"][::core::mem::size_of::<CUmemLocation_st>() - 8usize];
    ["Alignment of CUmemLocation_st"][::core::mem::align_of::<CUmemLocation_st>() - 4usize];
    ["Offset of field: CUmemLocation_st::type_"]
        [::core::mem::offset_of!(CUmemLocation_st, type_) - 0usize];
    ["Offset of field: CUmemLocation_st::id"]
        [::core::mem::offset_of!(CUmemLocation_st, id) - 4usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUgraphExecUpdateResultInfo_st"]
        [::core::mem::size_of::<CUgraphExecUpdateResultInfo_st>() - 24usize];
    ["Alignment of CUgraphExecUpdateResultInfo_st"]
        [::core::mem::align_of::<CUgraphExecUpdateResultInfo_st>() - 8usize];
    ["Offset of field: CUgraphExecUpdateResultInfo_st::result"]
        [::core::mem::offset_of!(CUgraphExecUpdateResultInfo_st, result) - 0usize];
    ["Offset of field: CUgraphExecUpdateResultInfo_st::errorNode"]
        [::core::mem::offset_of!(CUgraphExecUpdateResultInfo_st, errorNode) - 8usize];
    ["Offset of field: CUgraphExecUpdateResultInfo_st::errorFromNode"]
        [::core::mem::offset_of!(CUgraphExecUpdateResultInfo_st, errorFromNode) - 16usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CUmemPoolProps_st"][::core::mem::size_of::<CUmemPoolProps_st>() - 88usize];
    ["Alignment of CUmemPoolProps_st"][::core::mem::align_of::<CUmemPoolProps_st>() - 8usize];
    ["Offset of field: CUmemPoolProps_st::allocType"]
        [::core::mem::offset_of!(CUmemPoolProps_st, allocType) - 0usize];
    ["Offset of field: CUmemPoolProps_st::handleTypes"]
        [::core::mem::offset_of!(CUmemPoolProps_st, handleTypes) - 4usize];
    ["Offset of field: CUmemPoolProps_st::location"]
        [::core::mem::offset_of!(CUmemPoolProps_st, location) - 8usize];
    ["Offset of field: CUmemPoolProps_st::win32SecurityAttributes"]
        [::core::mem::offset_of!(CUmemPoolProps_st, win32SecurityAttributes) - 16usize];
    ["Offset of field: CUmemPoolProps_st::maxSize"]
        [::core::mem::offset_of!(CUmemPoolProps_st, maxSize) - 24usize];
    ["Offset of field: CUmemPoolProps_st::usage"]
        [::core::mem::offset_of!(CUmemPoolProps_st, usage) - 32usize];
    ["Offset of field: CUmemPoolProps_st::reserved"]
        [::core::mem::offset_of!(CUmemPoolProps_st, reserved) - 34usize];
};
#[repr(C)]
#[derive(Copy, Clone)]
pub union CUlaunchAttributeValue_union {
    pub pad: [::core::ffi::c_char; 64usize],
    pub accessPolicyWindow: CUaccessPolicyWindow,
    pub cooperative: ::core::ffi::c_int,
    pub syncPolicy: CUsynchronizationPolicy,
    pub clusterDim: CUlaunchAttributeValue_union__bindgen_ty_1,
    pub clusterSchedulingPolicyPreference: CUclusterSchedulingPolicy,
    pub programmaticStreamSerializationAllowed: ::core::ffi::c_int,
    pub programmaticEvent: CUlaunchAttributeValue_union__bindgen_ty_2,
    pub launchCompletionEvent: CUlaunchAttributeValue_union__bindgen_ty_3,
    pub priority: ::core::ffi::c_int,
    pub memSyncDomainMap: CUlaunchMemSyncDomainMap,
    pub memSyncDomain: CUlaunchMemSyncDomain,
    pub preferredClusterDim: CUlaunchAttributeValue_union__bindgen_ty_4,
    pub deviceUpdatableKernelNode: CUlaunchAttributeValue_union__bindgen_ty_5,
    pub sharedMemCarveout: ::core::ffi::c_uint,
    pub nvlinkUtilCentricScheduling: ::core::ffi::c_uint,
}
impl CUstream_flags {
    pub const CU_STREAM_DEFAULT: CUstream_flags = CUstream_flags(0);
    pub const CU_STREAM_NON_BLOCKING: CUstream_flags = CUstream_flags(1);
}
impl CUevent_flags {
    pub const CU_EVENT_DEFAULT: CUevent_flags = CUevent_flags(0);
    pub const CU_EVENT_BLOCKING_SYNC: CUevent_flags = CUevent_flags(1);
    pub const CU_EVENT_DISABLE_TIMING: CUevent_flags = CUevent_flags(2);
    pub const CU_EVENT_INTERPROCESS: CUevent_flags = CUevent_flags(4);
}
impl CUoccupancy_flags {
    pub const CU_OCCUPANCY_DEFAULT: CUoccupancy_flags = CUoccupancy_flags(0);
    pub const CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE: CUoccupancy_flags = CUoccupancy_flags(1);
}
impl CUdevice_attribute {
    pub const MAX_THREADS_PER_BLOCK: CUdevice_attribute = CUdevice_attribute(1);
    pub const MAX_BLOCK_DIM_X: CUdevice_attribute = CUdevice_attribute(2);
    pub const MAX_BLOCK_DIM_Y: CUdevice_attribute = CUdevice_attribute(3);
    pub const MAX_BLOCK_DIM_Z: CUdevice_attribute = CUdevice_attribute(4);
    pub const MAX_GRID_DIM_X: CUdevice_attribute = CUdevice_attribute(5);
    pub const MAX_GRID_DIM_Y: CUdevice_attribute = CUdevice_attribute(6);
    pub const MAX_GRID_DIM_Z: CUdevice_attribute = CUdevice_attribute(7);
    pub const MAX_SHARED_MEMORY_PER_BLOCK: CUdevice_attribute = CUdevice_attribute(8);
    pub const SHARED_MEMORY_PER_BLOCK: CUdevice_attribute = CUdevice_attribute(8);
    pub const TOTAL_CONSTANT_MEMORY: CUdevice_attribute = CUdevice_attribute(9);
    pub const WARP_SIZE: CUdevice_attribute = CUdevice_attribute(10);
    pub const MAX_PITCH: CUdevice_attribute = CUdevice_attribute(11);
    pub const MAX_REGISTERS_PER_BLOCK: CUdevice_attribute = CUdevice_attribute(12);
    pub const REGISTERS_PER_BLOCK: CUdevice_attribute = CUdevice_attribute(12);
    pub const CLOCK_RATE: CUdevice_attribute = CUdevice_attribute(13);
    pub const TEXTURE_ALIGNMENT: CUdevice_attribute = CUdevice_attribute(14);
    pub const GPU_OVERLAP: CUdevice_attribute = CUdevice_attribute(15);
    pub const MULTIPROCESSOR_COUNT: CUdevice_attribute = CUdevice_attribute(16);
    pub const KERNEL_EXEC_TIMEOUT: CUdevice_attribute = CUdevice_attribute(17);
    pub const INTEGRATED: CUdevice_attribute = CUdevice_attribute(18);
    pub const CAN_MAP_HOST_MEMORY: CUdevice_attribute = CUdevice_attribute(19);
    pub const COMPUTE_MODE: CUdevice_attribute = CUdevice_attribute(20);
    pub const MAXIMUM_TEXTURE1D_WIDTH: CUdevice_attribute = CUdevice_attribute(21);
    pub const MAXIMUM_TEXTURE2D_WIDTH: CUdevice_attribute = CUdevice_attribute(22);
    pub const MAXIMUM_TEXTURE2D_HEIGHT: CUdevice_attribute = CUdevice_attribute(23);
    pub const MAXIMUM_TEXTURE3D_WIDTH: CUdevice_attribute = CUdevice_attribute(24);
    pub const MAXIMUM_TEXTURE3D_HEIGHT: CUdevice_attribute = CUdevice_attribute(25);
    pub const MAXIMUM_TEXTURE3D_DEPTH: CUdevice_attribute = CUdevice_attribute(26);
    pub const MAXIMUM_TEXTURE2D_LAYERED_WIDTH: CUdevice_attribute = CUdevice_attribute(27);
    pub const MAXIMUM_TEXTURE2D_LAYERED_HEIGHT: CUdevice_attribute = CUdevice_attribute(28);
    pub const MAXIMUM_TEXTURE2D_LAYERED_LAYERS: CUdevice_attribute = CUdevice_attribute(29);
    pub const MAXIMUM_TEXTURE2D_ARRAY_WIDTH: CUdevice_attribute = CUdevice_attribute(27);
    pub const MAXIMUM_TEXTURE2D_ARRAY_HEIGHT: CUdevice_attribute = CUdevice_attribute(28);
    pub const MAXIMUM_TEXTURE2D_ARRAY_NUMSLICES: CUdevice_attribute = CUdevice_attribute(29);
    pub const SURFACE_ALIGNMENT: CUdevice_attribute = CUdevice_attribute(30);
    pub const CONCURRENT_KERNELS: CUdevice_attribute = CUdevice_attribute(31);
    pub const ECC_ENABLED: CUdevice_attribute = CUdevice_attribute(32);
    pub const PCI_BUS_ID: CUdevice_attribute = CUdevice_attribute(33);
    pub const PCI_DEVICE_ID: CUdevice_attribute = CUdevice_attribute(34);
    pub const TCC_DRIVER: CUdevice_attribute = CUdevice_attribute(35);
    pub const MEMORY_CLOCK_RATE: CUdevice_attribute = CUdevice_attribute(36);
    pub const GLOBAL_MEMORY_BUS_WIDTH: CUdevice_attribute = CUdevice_attribute(37);
    pub const L2_CACHE_SIZE: CUdevice_attribute = CUdevice_attribute(38);
    pub const MAX_THREADS_PER_MULTIPROCESSOR: CUdevice_attribute = CUdevice_attribute(39);
    pub const ASYNC_ENGINE_COUNT: CUdevice_attribute = CUdevice_attribute(40);
    pub const UNIFIED_ADDRESSING: CUdevice_attribute = CUdevice_attribute(41);
    pub const MAXIMUM_TEXTURE1D_LAYERED_WIDTH: CUdevice_attribute = CUdevice_attribute(42);
    pub const MAXIMUM_TEXTURE1D_LAYERED_LAYERS: CUdevice_attribute = CUdevice_attribute(43);
    pub const CAN_TEX2D_GATHER: CUdevice_attribute = CUdevice_attribute(44);
    pub const MAXIMUM_TEXTURE2D_GATHER_WIDTH: CUdevice_attribute = CUdevice_attribute(45);
    pub const MAXIMUM_TEXTURE2D_GATHER_HEIGHT: CUdevice_attribute = CUdevice_attribute(46);
    pub const MAXIMUM_TEXTURE3D_WIDTH_ALTERNATE: CUdevice_attribute = CUdevice_attribute(47);
    pub const MAXIMUM_TEXTURE3D_HEIGHT_ALTERNATE: CUdevice_attribute = CUdevice_attribute(48);
    pub const MAXIMUM_TEXTURE3D_DEPTH_ALTERNATE: CUdevice_attribute = CUdevice_attribute(49);
    pub const PCI_DOMAIN_ID: CUdevice_attribute = CUdevice_attribute(50);
    pub const TEXTURE_PITCH_ALIGNMENT: CUdevice_attribute = CUdevice_attribute(51);
    pub const MAXIMUM_TEXTURECUBEMAP_WIDTH: CUdevice_attribute = CUdevice_attribute(52);
    pub const MAXIMUM_TEXTURECUBEMAP_LAYERED_WIDTH: CUdevice_attribute = CUdevice_attribute(53);
    pub const MAXIMUM_TEXTURECUBEMAP_LAYERED_LAYERS: CUdevice_attribute = CUdevice_attribute(54);
    pub const MAXIMUM_SURFACE1D_WIDTH: CUdevice_attribute = CUdevice_attribute(55);
    pub const MAXIMUM_SURFACE2D_WIDTH: CUdevice_attribute = CUdevice_attribute(56);
    pub const MAXIMUM_SURFACE2D_HEIGHT: CUdevice_attribute = CUdevice_attribute(57);
    pub const MAXIMUM_SURFACE3D_WIDTH: CUdevice_attribute = CUdevice_attribute(58);
    pub const MAXIMUM_SURFACE3D_HEIGHT: CUdevice_attribute = CUdevice_attribute(59);
    pub const MAXIMUM_SURFACE3D_DEPTH: CUdevice_attribute = CUdevice_attribute(60);
    pub const MAXIMUM_SURFACE1D_LAYERED_WIDTH: CUdevice_attribute = CUdevice_attribute(61);
    pub const MAXIMUM_SURFACE1D_LAYERED_LAYERS: CUdevice_attribute = CUdevice_attribute(62);
    pub const MAXIMUM_SURFACE2D_LAYERED_WIDTH: CUdevice_attribute = CUdevice_attribute(63);
    pub const MAXIMUM_SURFACE2D_LAYERED_HEIGHT: CUdevice_attribute = CUdevice_attribute(64);
    pub const MAXIMUM_SURFACE2D_LAYERED_LAYERS: CUdevice_attribute = CUdevice_attribute(65);
    pub const MAXIMUM_SURFACECUBEMAP_WIDTH: CUdevice_attribute = CUdevice_attribute(66);
    pub const MAXIMUM_SURFACECUBEMAP_LAYERED_WIDTH: CUdevice_attribute = CUdevice_attribute(67);
    pub const MAXIMUM_SURFACECUBEMAP_LAYERED_LAYERS: CUdevice_attribute = CUdevice_attribute(68);
    pub const MAXIMUM_TEXTURE1D_LINEAR_WIDTH: CUdevice_attribute = CUdevice_attribute(69);
    pub const MAXIMUM_TEXTURE2D_LINEAR_WIDTH: CUdevice_attribute = CUdevice_attribute(70);
    pub const MAXIMUM_TEXTURE2D_LINEAR_HEIGHT: CUdevice_attribute = CUdevice_attribute(71);
    pub const MAXIMUM_TEXTURE2D_LINEAR_PITCH: CUdevice_attribute = CUdevice_attribute(72);
    pub const MAXIMUM_TEXTURE2D_MIPMAPPED_WIDTH: CUdevice_attribute = CUdevice_attribute(73);
    pub const MAXIMUM_TEXTURE2D_MIPMAPPED_HEIGHT: CUdevice_attribute = CUdevice_attribute(74);
    pub const COMPUTE_CAPABILITY_MAJOR: CUdevice_attribute = CUdevice_attribute(75);
    pub const COMPUTE_CAPABILITY_MINOR: CUdevice_attribute = CUdevice_attribute(76);
    pub const MAXIMUM_TEXTURE1D_MIPMAPPED_WIDTH: CUdevice_attribute = CUdevice_attribute(77);
    pub const STREAM_PRIORITIES_SUPPORTED: CUdevice_attribute = CUdevice_attribute(78);
    pub const GLOBAL_L1_CACHE_SUPPORTED: CUdevice_attribute = CUdevice_attribute(79);
    pub const LOCAL_L1_CACHE_SUPPORTED: CUdevice_attribute = CUdevice_attribute(80);
    pub const MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: CUdevice_attribute = CUdevice_attribute(81);
    pub const MAX_REGISTERS_PER_MULTIPROCESSOR: CUdevice_attribute = CUdevice_attribute(82);
    pub const MANAGED_MEMORY: CUdevice_attribute = CUdevice_attribute(83);
    pub const MULTI_GPU_BOARD: CUdevice_attribute = CUdevice_attribute(84);
    pub const MULTI_GPU_BOARD_GROUP_ID: CUdevice_attribute = CUdevice_attribute(85);
    pub const HOST_NATIVE_ATOMIC_SUPPORTED: CUdevice_attribute = CUdevice_attribute(86);
    pub const SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO: CUdevice_attribute = CUdevice_attribute(87);
    pub const PAGEABLE_MEMORY_ACCESS: CUdevice_attribute = CUdevice_attribute(88);
    pub const CONCURRENT_MANAGED_ACCESS: CUdevice_attribute = CUdevice_attribute(89);
    pub const COMPUTE_PREEMPTION_SUPPORTED: CUdevice_attribute = CUdevice_attribute(90);
    pub const CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM: CUdevice_attribute = CUdevice_attribute(91);
    pub const CAN_USE_STREAM_MEM_OPS_V1: CUdevice_attribute = CUdevice_attribute(92);
    pub const CAN_USE_64_BIT_STREAM_MEM_OPS_V1: CUdevice_attribute = CUdevice_attribute(93);
    pub const CAN_USE_STREAM_WAIT_VALUE_NOR_V1: CUdevice_attribute = CUdevice_attribute(94);
    pub const COOPERATIVE_LAUNCH: CUdevice_attribute = CUdevice_attribute(95);
    pub const COOPERATIVE_MULTI_DEVICE_LAUNCH: CUdevice_attribute = CUdevice_attribute(96);
    pub const MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: CUdevice_attribute = CUdevice_attribute(97);
    pub const CAN_FLUSH_REMOTE_WRITES: CUdevice_attribute = CUdevice_attribute(98);
    pub const HOST_REGISTER_SUPPORTED: CUdevice_attribute = CUdevice_attribute(99);
    pub const PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES: CUdevice_attribute =
        CUdevice_attribute(100);
    pub const DIRECT_MANAGED_MEM_ACCESS_FROM_HOST: CUdevice_attribute = CUdevice_attribute(101);
    pub const VIRTUAL_ADDRESS_MANAGEMENT_SUPPORTED: CUdevice_attribute = CUdevice_attribute(102);
    pub const VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED: CUdevice_attribute = CUdevice_attribute(102);
    pub const HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED: CUdevice_attribute =
        CUdevice_attribute(103);
    pub const HANDLE_TYPE_WIN32_HANDLE_SUPPORTED: CUdevice_attribute = CUdevice_attribute(104);
    pub const HANDLE_TYPE_WIN32_KMT_HANDLE_SUPPORTED: CUdevice_attribute = CUdevice_attribute(105);
    pub const MAX_BLOCKS_PER_MULTIPROCESSOR: CUdevice_attribute = CUdevice_attribute(106);
    pub const GENERIC_COMPRESSION_SUPPORTED: CUdevice_attribute = CUdevice_attribute(107);
    pub const MAX_PERSISTING_L2_CACHE_SIZE: CUdevice_attribute = CUdevice_attribute(108);
    pub const MAX_ACCESS_POLICY_WINDOW_SIZE: CUdevice_attribute = CUdevice_attribute(109);
    pub const GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED: CUdevice_attribute = CUdevice_attribute(110);
    pub const RESERVED_SHARED_MEMORY_PER_BLOCK: CUdevice_attribute = CUdevice_attribute(111);
    pub const SPARSE_CUDA_ARRAY_SUPPORTED: CUdevice_attribute = CUdevice_attribute(112);
    pub const READ_ONLY_HOST_REGISTER_SUPPORTED: CUdevice_attribute = CUdevice_attribute(113);
    pub const TIMELINE_SEMAPHORE_INTEROP_SUPPORTED: CUdevice_attribute = CUdevice_attribute(114);
    pub const MEMORY_POOLS_SUPPORTED: CUdevice_attribute = CUdevice_attribute(115);
    pub const GPU_DIRECT_RDMA_SUPPORTED: CUdevice_attribute = CUdevice_attribute(116);
    pub const GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS: CUdevice_attribute = CUdevice_attribute(117);
    pub const GPU_DIRECT_RDMA_WRITES_ORDERING: CUdevice_attribute = CUdevice_attribute(118);
    pub const MEMPOOL_SUPPORTED_HANDLE_TYPES: CUdevice_attribute = CUdevice_attribute(119);
    pub const CLUSTER_LAUNCH: CUdevice_attribute = CUdevice_attribute(120);
    pub const DEFERRED_MAPPING_CUDA_ARRAY_SUPPORTED: CUdevice_attribute = CUdevice_attribute(121);
    pub const CAN_USE_64_BIT_STREAM_MEM_OPS: CUdevice_attribute = CUdevice_attribute(122);
    pub const CAN_USE_STREAM_WAIT_VALUE_NOR: CUdevice_attribute = CUdevice_attribute(123);
    pub const DMA_BUF_SUPPORTED: CUdevice_attribute = CUdevice_attribute(124);
    pub const IPC_EVENT_SUPPORTED: CUdevice_attribute = CUdevice_attribute(125);
    pub const MEM_SYNC_DOMAIN_COUNT: CUdevice_attribute = CUdevice_attribute(126);
    pub const TENSOR_MAP_ACCESS_SUPPORTED: CUdevice_attribute = CUdevice_attribute(127);
    pub const HANDLE_TYPE_FABRIC_SUPPORTED: CUdevice_attribute = CUdevice_attribute(128);
    pub const UNIFIED_FUNCTION_POINTERS: CUdevice_attribute = CUdevice_attribute(129);
    pub const NUMA_CONFIG: CUdevice_attribute = CUdevice_attribute(130);
    pub const NUMA_ID: CUdevice_attribute = CUdevice_attribute(131);
    pub const MULTICAST_SUPPORTED: CUdevice_attribute = CUdevice_attribute(132);
    pub const MPS_ENABLED: CUdevice_attribute = CUdevice_attribute(133);
    pub const HOST_NUMA_ID: CUdevice_attribute = CUdevice_attribute(134);
    pub const D3D12_CIG_SUPPORTED: CUdevice_attribute = CUdevice_attribute(135);
    pub const MEM_DECOMPRESS_ALGORITHM_MASK: CUdevice_attribute = CUdevice_attribute(136);
    pub const MEM_DECOMPRESS_MAXIMUM_LENGTH: CUdevice_attribute = CUdevice_attribute(137);
    pub const VULKAN_CIG_SUPPORTED: CUdevice_attribute = CUdevice_attribute(138);
    pub const GPU_PCI_DEVICE_ID: CUdevice_attribute = CUdevice_attribute(139);
    pub const GPU_PCI_SUBSYSTEM_ID: CUdevice_attribute = CUdevice_attribute(140);
    pub const HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED: CUdevice_attribute =
        CUdevice_attribute(141);
    pub const HOST_NUMA_MEMORY_POOLS_SUPPORTED: CUdevice_attribute = CUdevice_attribute(142);
    pub const HOST_NUMA_MULTINODE_IPC_SUPPORTED: CUdevice_attribute = CUdevice_attribute(143);
    pub const HOST_MEMORY_POOLS_SUPPORTED: CUdevice_attribute = CUdevice_attribute(144);
    pub const HOST_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED: CUdevice_attribute =
        CUdevice_attribute(145);
    pub const HOST_ALLOC_DMA_BUF_SUPPORTED: CUdevice_attribute = CUdevice_attribute(146);
    pub const ONLY_PARTIAL_HOST_NATIVE_ATOMIC_SUPPORTED: CUdevice_attribute =
        CUdevice_attribute(147);
    pub const MAX: CUdevice_attribute = CUdevice_attribute(148);
}
impl CUpointer_attribute {
    pub const CU_POINTER_ATTRIBUTE_CONTEXT: CUpointer_attribute = CUpointer_attribute(1);
    pub const CU_POINTER_ATTRIBUTE_MEMORY_TYPE: CUpointer_attribute = CUpointer_attribute(2);
    pub const CU_POINTER_ATTRIBUTE_DEVICE_POINTER: CUpointer_attribute = CUpointer_attribute(3);
    pub const CU_POINTER_ATTRIBUTE_HOST_POINTER: CUpointer_attribute = CUpointer_attribute(4);
    pub const CU_POINTER_ATTRIBUTE_P2P_TOKENS: CUpointer_attribute = CUpointer_attribute(5);
    pub const CU_POINTER_ATTRIBUTE_SYNC_MEMOPS: CUpointer_attribute = CUpointer_attribute(6);
    pub const CU_POINTER_ATTRIBUTE_BUFFER_ID: CUpointer_attribute = CUpointer_attribute(7);
    pub const CU_POINTER_ATTRIBUTE_IS_MANAGED: CUpointer_attribute = CUpointer_attribute(8);
    pub const CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: CUpointer_attribute = CUpointer_attribute(9);
    pub const CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE: CUpointer_attribute =
        CUpointer_attribute(10);
    pub const CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: CUpointer_attribute = CUpointer_attribute(11);
    pub const CU_POINTER_ATTRIBUTE_RANGE_SIZE: CUpointer_attribute = CUpointer_attribute(12);
    pub const CU_POINTER_ATTRIBUTE_MAPPED: CUpointer_attribute = CUpointer_attribute(13);
    pub const CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES: CUpointer_attribute =
        CUpointer_attribute(14);
    pub const CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE: CUpointer_attribute =
        CUpointer_attribute(15);
    pub const CU_POINTER_ATTRIBUTE_ACCESS_FLAGS: CUpointer_attribute = CUpointer_attribute(16);
    pub const CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE: CUpointer_attribute = CUpointer_attribute(17);
    pub const CU_POINTER_ATTRIBUTE_MAPPING_SIZE: CUpointer_attribute = CUpointer_attribute(18);
    pub const CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR: CUpointer_attribute = CUpointer_attribute(19);
    pub const CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID: CUpointer_attribute = CUpointer_attribute(20);
    pub const CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE: CUpointer_attribute =
        CUpointer_attribute(21);
}
impl CUfunction_attribute {
    pub const MAX_THREADS_PER_BLOCK: CUfunction_attribute = CUfunction_attribute(0);
    pub const SHARED_SIZE_BYTES: CUfunction_attribute = CUfunction_attribute(1);
    pub const CONST_SIZE_BYTES: CUfunction_attribute = CUfunction_attribute(2);
    pub const LOCAL_SIZE_BYTES: CUfunction_attribute = CUfunction_attribute(3);
    pub const NUM_REGS: CUfunction_attribute = CUfunction_attribute(4);
    pub const PTX_VERSION: CUfunction_attribute = CUfunction_attribute(5);
    pub const BINARY_VERSION: CUfunction_attribute = CUfunction_attribute(6);
    pub const CACHE_MODE_CA: CUfunction_attribute = CUfunction_attribute(7);
    pub const MAX_DYNAMIC_SHARED_SIZE_BYTES: CUfunction_attribute = CUfunction_attribute(8);
    pub const PREFERRED_SHARED_MEMORY_CARVEOUT: CUfunction_attribute = CUfunction_attribute(9);
    pub const CLUSTER_SIZE_MUST_BE_SET: CUfunction_attribute = CUfunction_attribute(10);
    pub const REQUIRED_CLUSTER_WIDTH: CUfunction_attribute = CUfunction_attribute(11);
    pub const REQUIRED_CLUSTER_HEIGHT: CUfunction_attribute = CUfunction_attribute(12);
    pub const REQUIRED_CLUSTER_DEPTH: CUfunction_attribute = CUfunction_attribute(13);
    pub const NON_PORTABLE_CLUSTER_SIZE_ALLOWED: CUfunction_attribute = CUfunction_attribute(14);
    pub const CLUSTER_SCHEDULING_POLICY_PREFERENCE: CUfunction_attribute = CUfunction_attribute(15);
    pub const MAX: CUfunction_attribute = CUfunction_attribute(16);
}
impl CUmemorytype {
    pub const CU_MEMORYTYPE_HOST: CUmemorytype = CUmemorytype(1);
    pub const CU_MEMORYTYPE_DEVICE: CUmemorytype = CUmemorytype(2);
    pub const CU_MEMORYTYPE_ARRAY: CUmemorytype = CUmemorytype(3);
    pub const CU_MEMORYTYPE_UNIFIED: CUmemorytype = CUmemorytype(4);
}
impl CUjit_option {
    pub const CU_JIT_MAX_REGISTERS: CUjit_option = CUjit_option(0);
    pub const CU_JIT_THREADS_PER_BLOCK: CUjit_option = CUjit_option(1);
    pub const CU_JIT_WALL_TIME: CUjit_option = CUjit_option(2);
    pub const CU_JIT_INFO_LOG_BUFFER: CUjit_option = CUjit_option(3);
    pub const CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES: CUjit_option = CUjit_option(4);
    pub const CU_JIT_ERROR_LOG_BUFFER: CUjit_option = CUjit_option(5);
    pub const CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES: CUjit_option = CUjit_option(6);
    pub const CU_JIT_OPTIMIZATION_LEVEL: CUjit_option = CUjit_option(7);
    pub const CU_JIT_TARGET_FROM_CUCONTEXT: CUjit_option = CUjit_option(8);
    pub const CU_JIT_TARGET: CUjit_option = CUjit_option(9);
    pub const CU_JIT_FALLBACK_STRATEGY: CUjit_option = CUjit_option(10);
    pub const CU_JIT_GENERATE_DEBUG_INFO: CUjit_option = CUjit_option(11);
    pub const CU_JIT_LOG_VERBOSE: CUjit_option = CUjit_option(12);
    pub const CU_JIT_GENERATE_LINE_INFO: CUjit_option = CUjit_option(13);
    pub const CU_JIT_CACHE_MODE: CUjit_option = CUjit_option(14);
    pub const CU_JIT_NEW_SM3X_OPT: CUjit_option = CUjit_option(15);
    pub const CU_JIT_FAST_COMPILE: CUjit_option = CUjit_option(16);
    pub const CU_JIT_GLOBAL_SYMBOL_NAMES: CUjit_option = CUjit_option(17);
    pub const CU_JIT_GLOBAL_SYMBOL_ADDRESSES: CUjit_option = CUjit_option(18);
    pub const CU_JIT_GLOBAL_SYMBOL_COUNT: CUjit_option = CUjit_option(19);
    pub const CU_JIT_LTO: CUjit_option = CUjit_option(20);
    pub const CU_JIT_FTZ: CUjit_option = CUjit_option(21);
    pub const CU_JIT_PREC_DIV: CUjit_option = CUjit_option(22);
    pub const CU_JIT_PREC_SQRT: CUjit_option = CUjit_option(23);
    pub const CU_JIT_FMA: CUjit_option = CUjit_option(24);
    pub const CU_JIT_REFERENCED_KERNEL_NAMES: CUjit_option = CUjit_option(25);
    pub const CU_JIT_REFERENCED_KERNEL_COUNT: CUjit_option = CUjit_option(26);
    pub const CU_JIT_REFERENCED_VARIABLE_NAMES: CUjit_option = CUjit_option(27);
    pub const CU_JIT_REFERENCED_VARIABLE_COUNT: CUjit_option = CUjit_option(28);
    pub const CU_JIT_OPTIMIZE_UNUSED_DEVICE_VARIABLES: CUjit_option = CUjit_option(29);
    pub const CU_JIT_POSITION_INDEPENDENT_CODE: CUjit_option = CUjit_option(30);
    pub const CU_JIT_MIN_CTA_PER_SM: CUjit_option = CUjit_option(31);
    pub const CU_JIT_MAX_THREADS_PER_BLOCK: CUjit_option = CUjit_option(32);
    pub const CU_JIT_OVERRIDE_DIRECTIVE_VALUES: CUjit_option = CUjit_option(33);
    pub const CU_JIT_SPLIT_COMPILE: CUjit_option = CUjit_option(34);
    pub const CU_JIT_NUM_OPTIONS: CUjit_option = CUjit_option(35);
}
impl CUaccessProperty {
    pub const CU_ACCESS_PROPERTY_NORMAL: CUaccessProperty = CUaccessProperty(0);
    pub const CU_ACCESS_PROPERTY_STREAMING: CUaccessProperty = CUaccessProperty(1);
    pub const CU_ACCESS_PROPERTY_PERSISTING: CUaccessProperty = CUaccessProperty(2);
}
impl Default for CUaccessPolicyWindow_st {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl Default for CUDA_KERNEL_NODE_PARAMS_v2_st {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl CUsynchronizationPolicy {
    pub const CU_SYNC_POLICY_AUTO: CUsynchronizationPolicy = CUsynchronizationPolicy(1);
    pub const CU_SYNC_POLICY_SPIN: CUsynchronizationPolicy = CUsynchronizationPolicy(2);
    pub const CU_SYNC_POLICY_YIELD: CUsynchronizationPolicy = CUsynchronizationPolicy(3);
    pub const CU_SYNC_POLICY_BLOCKING_SYNC: CUsynchronizationPolicy = CUsynchronizationPolicy(4);
}
impl CUclusterSchedulingPolicy {
    pub const CU_CLUSTER_SCHEDULING_POLICY_DEFAULT: CUclusterSchedulingPolicy =
        CUclusterSchedulingPolicy(0);
    pub const CU_CLUSTER_SCHEDULING_POLICY_SPREAD: CUclusterSchedulingPolicy =
        CUclusterSchedulingPolicy(1);
    pub const CU_CLUSTER_SCHEDULING_POLICY_LOAD_BALANCING: CUclusterSchedulingPolicy =
        CUclusterSchedulingPolicy(2);
}
impl CUlaunchMemSyncDomain {
    pub const CU_LAUNCH_MEM_SYNC_DOMAIN_DEFAULT: CUlaunchMemSyncDomain = CUlaunchMemSyncDomain(0);
    pub const CU_LAUNCH_MEM_SYNC_DOMAIN_REMOTE: CUlaunchMemSyncDomain = CUlaunchMemSyncDomain(1);
}
impl CUlaunchAttributeID {
    pub const CU_LAUNCH_ATTRIBUTE_IGNORE: CUlaunchAttributeID = CUlaunchAttributeID(0);
    pub const CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW: CUlaunchAttributeID =
        CUlaunchAttributeID(1);
    pub const CU_LAUNCH_ATTRIBUTE_COOPERATIVE: CUlaunchAttributeID = CUlaunchAttributeID(2);
    pub const CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY: CUlaunchAttributeID =
        CUlaunchAttributeID(3);
    pub const CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION: CUlaunchAttributeID = CUlaunchAttributeID(4);
    pub const CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE: CUlaunchAttributeID =
        CUlaunchAttributeID(5);
    pub const CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: CUlaunchAttributeID =
        CUlaunchAttributeID(6);
    pub const CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT: CUlaunchAttributeID = CUlaunchAttributeID(7);
    pub const CU_LAUNCH_ATTRIBUTE_PRIORITY: CUlaunchAttributeID = CUlaunchAttributeID(8);
    pub const CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP: CUlaunchAttributeID = CUlaunchAttributeID(9);
    pub const CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN: CUlaunchAttributeID = CUlaunchAttributeID(10);
    pub const CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION: CUlaunchAttributeID =
        CUlaunchAttributeID(11);
    pub const CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT: CUlaunchAttributeID =
        CUlaunchAttributeID(12);
    pub const CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE: CUlaunchAttributeID =
        CUlaunchAttributeID(13);
    pub const CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: CUlaunchAttributeID =
        CUlaunchAttributeID(14);
    pub const CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING: CUlaunchAttributeID =
        CUlaunchAttributeID(16);
}
impl Default for CUlaunchAttributeValue_union__bindgen_ty_2 {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl Default for CUlaunchAttributeValue_union__bindgen_ty_3 {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl Default for CUlaunchAttributeValue_union__bindgen_ty_5 {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl Default for CUlaunchAttributeValue_union {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl Default for CUlaunchAttribute_st {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl Default for CUlaunchConfig_st {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl CUstreamCaptureStatus {
    pub const CU_STREAM_CAPTURE_STATUS_NONE: CUstreamCaptureStatus = CUstreamCaptureStatus(0);
    pub const CU_STREAM_CAPTURE_STATUS_ACTIVE: CUstreamCaptureStatus = CUstreamCaptureStatus(1);
    pub const CU_STREAM_CAPTURE_STATUS_INVALIDATED: CUstreamCaptureStatus =
        CUstreamCaptureStatus(2);
}
impl CUstreamCaptureMode {
    pub const CU_STREAM_CAPTURE_MODE_GLOBAL: CUstreamCaptureMode = CUstreamCaptureMode(0);
    pub const CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: CUstreamCaptureMode = CUstreamCaptureMode(1);
    pub const CU_STREAM_CAPTURE_MODE_RELAXED: CUstreamCaptureMode = CUstreamCaptureMode(2);
}
impl CUdriverProcAddressQueryResult {
    pub const CU_GET_PROC_ADDRESS_SUCCESS: CUdriverProcAddressQueryResult =
        CUdriverProcAddressQueryResult(0);
    pub const CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND: CUdriverProcAddressQueryResult =
        CUdriverProcAddressQueryResult(1);
    pub const CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT: CUdriverProcAddressQueryResult =
        CUdriverProcAddressQueryResult(2);
}
impl CUresult {
    pub const SUCCESS: CUresult = CUresult(0);
    pub const INVALID_VALUE: CUresult = CUresult(1);
    pub const OUT_OF_MEMORY: CUresult = CUresult(2);
    pub const NOT_INITIALIZED: CUresult = CUresult(3);
    pub const DEINITIALIZED: CUresult = CUresult(4);
    pub const PROFILER_DISABLED: CUresult = CUresult(5);
    pub const PROFILER_NOT_INITIALIZED: CUresult = CUresult(6);
    pub const PROFILER_ALREADY_STARTED: CUresult = CUresult(7);
    pub const PROFILER_ALREADY_STOPPED: CUresult = CUresult(8);
    pub const STUB_LIBRARY: CUresult = CUresult(34);
    pub const CALL_REQUIRES_NEWER_DRIVER: CUresult = CUresult(36);
    pub const DEVICE_UNAVAILABLE: CUresult = CUresult(46);
    pub const NO_DEVICE: CUresult = CUresult(100);
    pub const INVALID_DEVICE: CUresult = CUresult(101);
    pub const DEVICE_NOT_LICENSED: CUresult = CUresult(102);
    pub const INVALID_IMAGE: CUresult = CUresult(200);
    pub const INVALID_CONTEXT: CUresult = CUresult(201);
    pub const CONTEXT_ALREADY_CURRENT: CUresult = CUresult(202);
    pub const MAP_FAILED: CUresult = CUresult(205);
    pub const UNMAP_FAILED: CUresult = CUresult(206);
    pub const ARRAY_IS_MAPPED: CUresult = CUresult(207);
    pub const ALREADY_MAPPED: CUresult = CUresult(208);
    pub const NO_BINARY_FOR_GPU: CUresult = CUresult(209);
    pub const ALREADY_ACQUIRED: CUresult = CUresult(210);
    pub const NOT_MAPPED: CUresult = CUresult(211);
    pub const NOT_MAPPED_AS_ARRAY: CUresult = CUresult(212);
    pub const NOT_MAPPED_AS_POINTER: CUresult = CUresult(213);
    pub const ECC_UNCORRECTABLE: CUresult = CUresult(214);
    pub const UNSUPPORTED_LIMIT: CUresult = CUresult(215);
    pub const CONTEXT_ALREADY_IN_USE: CUresult = CUresult(216);
    pub const PEER_ACCESS_UNSUPPORTED: CUresult = CUresult(217);
    pub const INVALID_PTX: CUresult = CUresult(218);
    pub const INVALID_GRAPHICS_CONTEXT: CUresult = CUresult(219);
    pub const NVLINK_UNCORRECTABLE: CUresult = CUresult(220);
    pub const JIT_COMPILER_NOT_FOUND: CUresult = CUresult(221);
    pub const UNSUPPORTED_PTX_VERSION: CUresult = CUresult(222);
    pub const JIT_COMPILATION_DISABLED: CUresult = CUresult(223);
    pub const UNSUPPORTED_EXEC_AFFINITY: CUresult = CUresult(224);
    pub const UNSUPPORTED_DEVSIDE_SYNC: CUresult = CUresult(225);
    pub const CONTAINED: CUresult = CUresult(226);
    pub const INVALID_SOURCE: CUresult = CUresult(300);
    pub const FILE_NOT_FOUND: CUresult = CUresult(301);
    pub const SHARED_OBJECT_SYMBOL_NOT_FOUND: CUresult = CUresult(302);
    pub const SHARED_OBJECT_INIT_FAILED: CUresult = CUresult(303);
    pub const OPERATING_SYSTEM: CUresult = CUresult(304);
    pub const INVALID_HANDLE: CUresult = CUresult(400);
    pub const ILLEGAL_STATE: CUresult = CUresult(401);
    pub const LOSSY_QUERY: CUresult = CUresult(402);
    pub const NOT_FOUND: CUresult = CUresult(500);
    pub const NOT_READY: CUresult = CUresult(600);
    pub const ILLEGAL_ADDRESS: CUresult = CUresult(700);
    pub const LAUNCH_OUT_OF_RESOURCES: CUresult = CUresult(701);
    pub const LAUNCH_TIMEOUT: CUresult = CUresult(702);
    pub const LAUNCH_INCOMPATIBLE_TEXTURING: CUresult = CUresult(703);
    pub const PEER_ACCESS_ALREADY_ENABLED: CUresult = CUresult(704);
    pub const PEER_ACCESS_NOT_ENABLED: CUresult = CUresult(705);
    pub const PRIMARY_CONTEXT_ACTIVE: CUresult = CUresult(708);
    pub const CONTEXT_IS_DESTROYED: CUresult = CUresult(709);
    pub const ASSERT: CUresult = CUresult(710);
    pub const TOO_MANY_PEERS: CUresult = CUresult(711);
    pub const HOST_MEMORY_ALREADY_REGISTERED: CUresult = CUresult(712);
    pub const HOST_MEMORY_NOT_REGISTERED: CUresult = CUresult(713);
    pub const HARDWARE_STACK_ERROR: CUresult = CUresult(714);
    pub const ILLEGAL_INSTRUCTION: CUresult = CUresult(715);
    pub const MISALIGNED_ADDRESS: CUresult = CUresult(716);
    pub const INVALID_ADDRESS_SPACE: CUresult = CUresult(717);
    pub const INVALID_PC: CUresult = CUresult(718);
    pub const LAUNCH_FAILED: CUresult = CUresult(719);
    pub const COOPERATIVE_LAUNCH_TOO_LARGE: CUresult = CUresult(720);
    pub const TENSOR_MEMORY_LEAK: CUresult = CUresult(721);
    pub const NOT_PERMITTED: CUresult = CUresult(800);
    pub const NOT_SUPPORTED: CUresult = CUresult(801);
    pub const SYSTEM_NOT_READY: CUresult = CUresult(802);
    pub const SYSTEM_DRIVER_MISMATCH: CUresult = CUresult(803);
    pub const COMPAT_NOT_SUPPORTED_ON_DEVICE: CUresult = CUresult(804);
    pub const MPS_CONNECTION_FAILED: CUresult = CUresult(805);
    pub const MPS_RPC_FAILURE: CUresult = CUresult(806);
    pub const MPS_SERVER_NOT_READY: CUresult = CUresult(807);
    pub const MPS_MAX_CLIENTS_REACHED: CUresult = CUresult(808);
    pub const MPS_MAX_CONNECTIONS_REACHED: CUresult = CUresult(809);
    pub const MPS_CLIENT_TERMINATED: CUresult = CUresult(810);
    pub const CDP_NOT_SUPPORTED: CUresult = CUresult(811);
    pub const CDP_VERSION_MISMATCH: CUresult = CUresult(812);
    pub const STREAM_CAPTURE_UNSUPPORTED: CUresult = CUresult(900);
    pub const STREAM_CAPTURE_INVALIDATED: CUresult = CUresult(901);
    pub const STREAM_CAPTURE_MERGE: CUresult = CUresult(902);
    pub const STREAM_CAPTURE_UNMATCHED: CUresult = CUresult(903);
    pub const STREAM_CAPTURE_UNJOINED: CUresult = CUresult(904);
    pub const STREAM_CAPTURE_ISOLATION: CUresult = CUresult(905);
    pub const STREAM_CAPTURE_IMPLICIT: CUresult = CUresult(906);
    pub const CAPTURED_EVENT: CUresult = CUresult(907);
    pub const STREAM_CAPTURE_WRONG_THREAD: CUresult = CUresult(908);
    pub const TIMEOUT: CUresult = CUresult(909);
    pub const GRAPH_EXEC_UPDATE_FAILURE: CUresult = CUresult(910);
    pub const EXTERNAL_DEVICE: CUresult = CUresult(911);
    pub const INVALID_CLUSTER_SIZE: CUresult = CUresult(912);
    pub const FUNCTION_NOT_LOADED: CUresult = CUresult(913);
    pub const INVALID_RESOURCE_TYPE: CUresult = CUresult(914);
    pub const INVALID_RESOURCE_CONFIGURATION: CUresult = CUresult(915);
    pub const KEY_ROTATION: CUresult = CUresult(916);
    pub const UNKNOWN: CUresult = CUresult(999);
}
impl Default for CUDA_MEMCPY3D_st {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl Default for CUtensorMap_st {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl CUtensorMapDataType {
    pub const CU_TENSOR_MAP_DATA_TYPE_UINT8: CUtensorMapDataType = CUtensorMapDataType(0);
    pub const CU_TENSOR_MAP_DATA_TYPE_UINT16: CUtensorMapDataType = CUtensorMapDataType(1);
    pub const CU_TENSOR_MAP_DATA_TYPE_UINT32: CUtensorMapDataType = CUtensorMapDataType(2);
    pub const CU_TENSOR_MAP_DATA_TYPE_INT32: CUtensorMapDataType = CUtensorMapDataType(3);
    pub const CU_TENSOR_MAP_DATA_TYPE_UINT64: CUtensorMapDataType = CUtensorMapDataType(4);
    pub const CU_TENSOR_MAP_DATA_TYPE_INT64: CUtensorMapDataType = CUtensorMapDataType(5);
    pub const CU_TENSOR_MAP_DATA_TYPE_FLOAT16: CUtensorMapDataType = CUtensorMapDataType(6);
    pub const CU_TENSOR_MAP_DATA_TYPE_FLOAT32: CUtensorMapDataType = CUtensorMapDataType(7);
    pub const CU_TENSOR_MAP_DATA_TYPE_FLOAT64: CUtensorMapDataType = CUtensorMapDataType(8);
    pub const CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: CUtensorMapDataType = CUtensorMapDataType(9);
    pub const CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ: CUtensorMapDataType = CUtensorMapDataType(10);
    pub const CU_TENSOR_MAP_DATA_TYPE_TFLOAT32: CUtensorMapDataType = CUtensorMapDataType(11);
    pub const CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ: CUtensorMapDataType = CUtensorMapDataType(12);
    pub const CU_TENSOR_MAP_DATA_TYPE_16U4_ALIGN8B: CUtensorMapDataType = CUtensorMapDataType(13);
    pub const CU_TENSOR_MAP_DATA_TYPE_16U4_ALIGN16B: CUtensorMapDataType = CUtensorMapDataType(14);
    pub const CU_TENSOR_MAP_DATA_TYPE_16U6_ALIGN16B: CUtensorMapDataType = CUtensorMapDataType(15);
}
impl CUtensorMapInterleave {
    pub const CU_TENSOR_MAP_INTERLEAVE_NONE: CUtensorMapInterleave = CUtensorMapInterleave(0);
    pub const CU_TENSOR_MAP_INTERLEAVE_16B: CUtensorMapInterleave = CUtensorMapInterleave(1);
    pub const CU_TENSOR_MAP_INTERLEAVE_32B: CUtensorMapInterleave = CUtensorMapInterleave(2);
}
impl CUtensorMapSwizzle {
    pub const CU_TENSOR_MAP_SWIZZLE_NONE: CUtensorMapSwizzle = CUtensorMapSwizzle(0);
    pub const CU_TENSOR_MAP_SWIZZLE_32B: CUtensorMapSwizzle = CUtensorMapSwizzle(1);
    pub const CU_TENSOR_MAP_SWIZZLE_64B: CUtensorMapSwizzle = CUtensorMapSwizzle(2);
    pub const CU_TENSOR_MAP_SWIZZLE_128B: CUtensorMapSwizzle = CUtensorMapSwizzle(3);
    pub const CU_TENSOR_MAP_SWIZZLE_128B_ATOM_32B: CUtensorMapSwizzle = CUtensorMapSwizzle(4);
    pub const CU_TENSOR_MAP_SWIZZLE_128B_ATOM_32B_FLIP_8B: CUtensorMapSwizzle =
        CUtensorMapSwizzle(5);
    pub const CU_TENSOR_MAP_SWIZZLE_128B_ATOM_64B: CUtensorMapSwizzle = CUtensorMapSwizzle(6);
}
impl CUtensorMapL2promotion {
    pub const CU_TENSOR_MAP_L2_PROMOTION_NONE: CUtensorMapL2promotion = CUtensorMapL2promotion(0);
    pub const CU_TENSOR_MAP_L2_PROMOTION_L2_64B: CUtensorMapL2promotion = CUtensorMapL2promotion(1);
    pub const CU_TENSOR_MAP_L2_PROMOTION_L2_128B: CUtensorMapL2promotion =
        CUtensorMapL2promotion(2);
    pub const CU_TENSOR_MAP_L2_PROMOTION_L2_256B: CUtensorMapL2promotion =
        CUtensorMapL2promotion(3);
}
impl CUtensorMapFloatOOBfill {
    pub const CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE: CUtensorMapFloatOOBfill =
        CUtensorMapFloatOOBfill(0);
    pub const CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA: CUtensorMapFloatOOBfill =
        CUtensorMapFloatOOBfill(1);
}
impl CUtensorMapIm2ColWideMode {
    pub const CU_TENSOR_MAP_IM2COL_WIDE_MODE_W: CUtensorMapIm2ColWideMode =
        CUtensorMapIm2ColWideMode(0);
    pub const CU_TENSOR_MAP_IM2COL_WIDE_MODE_W128: CUtensorMapIm2ColWideMode =
        CUtensorMapIm2ColWideMode(1);
}
impl CUmemAllocationHandleType {
    pub const CU_MEM_HANDLE_TYPE_NONE: CUmemAllocationHandleType = CUmemAllocationHandleType(0);
    pub const CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR: CUmemAllocationHandleType =
        CUmemAllocationHandleType(1);
    pub const CU_MEM_HANDLE_TYPE_WIN32: CUmemAllocationHandleType = CUmemAllocationHandleType(2);
    pub const CU_MEM_HANDLE_TYPE_WIN32_KMT: CUmemAllocationHandleType =
        CUmemAllocationHandleType(4);
    pub const CU_MEM_HANDLE_TYPE_FABRIC: CUmemAllocationHandleType = CUmemAllocationHandleType(8);
    pub const CU_MEM_HANDLE_TYPE_MAX: CUmemAllocationHandleType =
        CUmemAllocationHandleType(2147483647);
}
impl CUmemLocationType {
    pub const CU_MEM_LOCATION_TYPE_INVALID: CUmemLocationType = CUmemLocationType(0);
    pub const CU_MEM_LOCATION_TYPE_NONE: CUmemLocationType = CUmemLocationType(0);
    pub const CU_MEM_LOCATION_TYPE_DEVICE: CUmemLocationType = CUmemLocationType(1);
    pub const CU_MEM_LOCATION_TYPE_HOST: CUmemLocationType = CUmemLocationType(2);
    pub const CU_MEM_LOCATION_TYPE_HOST_NUMA: CUmemLocationType = CUmemLocationType(3);
    pub const CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT: CUmemLocationType = CUmemLocationType(4);
    pub const CU_MEM_LOCATION_TYPE_MAX: CUmemLocationType = CUmemLocationType(2147483647);
}
impl CUmemAllocationType {
    pub const CU_MEM_ALLOCATION_TYPE_INVALID: CUmemAllocationType = CUmemAllocationType(0);
    pub const CU_MEM_ALLOCATION_TYPE_PINNED: CUmemAllocationType = CUmemAllocationType(1);
    pub const CU_MEM_ALLOCATION_TYPE_MANAGED: CUmemAllocationType = CUmemAllocationType(2);
    pub const CU_MEM_ALLOCATION_TYPE_MAX: CUmemAllocationType = CUmemAllocationType(2147483647);
}
impl Default for CUmemLocation_st {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl CUgraphExecUpdateResult {
    pub const CU_GRAPH_EXEC_UPDATE_SUCCESS: CUgraphExecUpdateResult = CUgraphExecUpdateResult(0);
    pub const CU_GRAPH_EXEC_UPDATE_ERROR: CUgraphExecUpdateResult = CUgraphExecUpdateResult(1);
    pub const CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED: CUgraphExecUpdateResult =
        CUgraphExecUpdateResult(2);
    pub const CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED: CUgraphExecUpdateResult =
        CUgraphExecUpdateResult(3);
    pub const CU_GRAPH_EXEC_UPDATE_ERROR_FUNCTION_CHANGED: CUgraphExecUpdateResult =
        CUgraphExecUpdateResult(4);
    pub const CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED: CUgraphExecUpdateResult =
        CUgraphExecUpdateResult(5);
    pub const CU_GRAPH_EXEC_UPDATE_ERROR_NOT_SUPPORTED: CUgraphExecUpdateResult =
        CUgraphExecUpdateResult(6);
    pub const CU_GRAPH_EXEC_UPDATE_ERROR_UNSUPPORTED_FUNCTION_CHANGE: CUgraphExecUpdateResult =
        CUgraphExecUpdateResult(7);
    pub const CU_GRAPH_EXEC_UPDATE_ERROR_ATTRIBUTES_CHANGED: CUgraphExecUpdateResult =
        CUgraphExecUpdateResult(8);
}
impl Default for CUgraphExecUpdateResultInfo_st {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl CUmemPool_attribute {
    pub const CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES: CUmemPool_attribute =
        CUmemPool_attribute(1);
    pub const CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC: CUmemPool_attribute =
        CUmemPool_attribute(2);
    pub const CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES: CUmemPool_attribute =
        CUmemPool_attribute(3);
    pub const CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: CUmemPool_attribute = CUmemPool_attribute(4);
    pub const CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: CUmemPool_attribute = CUmemPool_attribute(5);
    pub const CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: CUmemPool_attribute = CUmemPool_attribute(6);
    pub const CU_MEMPOOL_ATTR_USED_MEM_CURRENT: CUmemPool_attribute = CUmemPool_attribute(7);
    pub const CU_MEMPOOL_ATTR_USED_MEM_HIGH: CUmemPool_attribute = CUmemPool_attribute(8);
}
impl Default for CUmemPoolProps_st {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
impl CUgraphInstantiate_flags {
    pub const CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH: CUgraphInstantiate_flags =
        CUgraphInstantiate_flags(1);
    pub const CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD: CUgraphInstantiate_flags =
        CUgraphInstantiate_flags(2);
    pub const CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH: CUgraphInstantiate_flags =
        CUgraphInstantiate_flags(4);
    pub const CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY: CUgraphInstantiate_flags =
        CUgraphInstantiate_flags(8);
}
functions! {
    cuInit: PFN_cuInit_v2000, CUDA 2 . 0;
    cuDriverGetVersion: PFN_cuDriverGetVersion_v2020, CUDA 2 . 2;
    cuGetProcAddress: PFN_cuGetProcAddress_v12000, CUDA 12 . 0;
    cuDeviceGet: PFN_cuDeviceGet_v2000, CUDA 2 . 0;
    cuDeviceGetCount: PFN_cuDeviceGetCount_v2000, CUDA 2 . 0;
    cuDeviceGetName: PFN_cuDeviceGetName_v2000, CUDA 2 . 0;
    cuDeviceGetAttribute: PFN_cuDeviceGetAttribute_v2000, CUDA 2 . 0;
    cuDeviceTotalMem: PFN_cuDeviceTotalMem_v3020, CUDA 3 . 2;
    cuDeviceGetUuid: PFN_cuDeviceGetUuid_v11040, CUDA 11 . 4;
    cuDevicePrimaryCtxRetain: PFN_cuDevicePrimaryCtxRetain_v7000, CUDA 7 . 0;
    cuDevicePrimaryCtxRelease: PFN_cuDevicePrimaryCtxRelease_v11000, CUDA 11 . 0;
    cuCtxGetCurrent: PFN_cuCtxGetCurrent_v4000, CUDA 4 . 0;
    cuCtxPushCurrent: PFN_cuCtxPushCurrent_v4000, CUDA 4 . 0;
    cuCtxPopCurrent: PFN_cuCtxPopCurrent_v4000, CUDA 4 . 0;
    cuCtxSynchronize: PFN_cuCtxSynchronize_v2000, CUDA 2 . 0;
    cuCtxGetStreamPriorityRange: PFN_cuCtxGetStreamPriorityRange_v5050, CUDA 5 . 5;
    cuStreamCreateWithPriority: PFN_cuStreamCreateWithPriority_v5050, CUDA 5 . 5;
    cuStreamDestroy: PFN_cuStreamDestroy_v4000, CUDA 4 . 0;
    cuStreamSynchronize: PFN_cuStreamSynchronize_v2000, CUDA 2 . 0;
    cuStreamQuery: PFN_cuStreamQuery_v2000, CUDA 2 . 0;
    cuStreamWaitEvent: PFN_cuStreamWaitEvent_v3020, CUDA 3 . 2;
    cuStreamGetPriority: PFN_cuStreamGetPriority_v5050, CUDA 5 . 5;
    cuStreamIsCapturing: PFN_cuStreamIsCapturing_v10000, CUDA 10 . 0;
    cuStreamBeginCapture: PFN_cuStreamBeginCapture_v10010, CUDA 10 . 1;
    cuStreamEndCapture: PFN_cuStreamEndCapture_v10000, CUDA 10 . 0;
    cuThreadExchangeStreamCaptureMode: PFN_cuThreadExchangeStreamCaptureMode_v10010, CUDA 10 . 1;
    cuLaunchHostFunc: PFN_cuLaunchHostFunc_v10000, CUDA 10 . 0;
    cuEventCreate: PFN_cuEventCreate_v2000, CUDA 2 . 0;
    cuEventDestroy: PFN_cuEventDestroy_v4000, CUDA 4 . 0;
    cuEventRecord: PFN_cuEventRecord_v2000, CUDA 2 . 0;
    cuEventQuery: PFN_cuEventQuery_v2000, CUDA 2 . 0;
    cuEventSynchronize: PFN_cuEventSynchronize_v2000, CUDA 2 . 0;
    cuEventElapsedTime: PFN_cuEventElapsedTime_v2000, CUDA 2 . 0;
    cuMemAlloc: PFN_cuMemAlloc_v3020, CUDA 3 . 2;
    cuMemFree: PFN_cuMemFree_v3020, CUDA 3 . 2;
    cuMemAllocFromPoolAsync: PFN_cuMemAllocFromPoolAsync_v11020, CUDA 11 . 2;
    cuMemFreeAsync: PFN_cuMemFreeAsync_v11020, CUDA 11 . 2;
    cuMemPoolCreate: PFN_cuMemPoolCreate_v11020, CUDA 11 . 2;
    cuMemPoolDestroy: PFN_cuMemPoolDestroy_v11020, CUDA 11 . 2;
    cuMemPoolSetAttribute: PFN_cuMemPoolSetAttribute_v11020, CUDA 11 . 2;
    cuMemPoolGetAttribute: PFN_cuMemPoolGetAttribute_v11020, CUDA 11 . 2;
    cuMemPoolTrimTo: PFN_cuMemPoolTrimTo_v11020, CUDA 11 . 2;
    cuMemGetInfo: PFN_cuMemGetInfo_v3020, CUDA 3 . 2;
    cuMemHostAlloc: PFN_cuMemHostAlloc_v2020, CUDA 2 . 2;
    cuMemFreeHost: PFN_cuMemFreeHost_v2000, CUDA 2 . 0;
    cuMemcpyHtoDAsync: PFN_cuMemcpyHtoDAsync_v3020, CUDA 3 . 2;
    cuMemcpyDtoHAsync: PFN_cuMemcpyDtoHAsync_v3020, CUDA 3 . 2;
    cuMemcpyDtoDAsync: PFN_cuMemcpyDtoDAsync_v3020, CUDA 3 . 2;
    cuMemsetD8Async: PFN_cuMemsetD8Async_v3020, CUDA 3 . 2;
    cuMemsetD32Async: PFN_cuMemsetD32Async_v3020, CUDA 3 . 2;
    cuPointerGetAttribute: PFN_cuPointerGetAttribute_v4000, CUDA 4 . 0;
    cuModuleLoadDataEx: PFN_cuModuleLoadDataEx_v2010, CUDA 2 . 1;
    cuModuleUnload: PFN_cuModuleUnload_v2000, CUDA 2 . 0;
    cuModuleGetFunction: PFN_cuModuleGetFunction_v2000, CUDA 2 . 0;
    cuModuleGetGlobal: PFN_cuModuleGetGlobal_v3020, CUDA 3 . 2;
    cuFuncGetAttribute: PFN_cuFuncGetAttribute_v2020, CUDA 2 . 2;
    cuFuncSetAttribute: PFN_cuFuncSetAttribute_v9000, CUDA 9 . 0;
    cuFuncGetParamInfo: PFN_cuFuncGetParamInfo_v12040, CUDA 12 . 4;
    cuLaunchKernelEx: PFN_cuLaunchKernelEx_v11060, CUDA 11 . 6;
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags: PFN_cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags_v7000, CUDA 7 . 0;
    cuOccupancyMaxPotentialBlockSize: PFN_cuOccupancyMaxPotentialBlockSize_v6050, CUDA 6 . 5;
    cuOccupancyAvailableDynamicSMemPerBlock: PFN_cuOccupancyAvailableDynamicSMemPerBlock_v10020, CUDA 10 . 2;
    cuOccupancyMaxActiveClusters: PFN_cuOccupancyMaxActiveClusters_v11070, CUDA 11 . 7;
    cuGraphGetNodes: PFN_cuGraphGetNodes_v10000, CUDA 10 . 0;
    cuGraphDestroy: PFN_cuGraphDestroy_v10000, CUDA 10 . 0;
    cuGraphCreate: PFN_cuGraphCreate_v10000, CUDA 10 . 0;
    cuGraphAddKernelNode: PFN_cuGraphAddKernelNode_v12000, CUDA 12 . 0;
    cuGraphAddMemcpyNode: PFN_cuGraphAddMemcpyNode_v10000, CUDA 10 . 0;
    cuGraphAddDependencies: PFN_cuGraphAddDependencies_v12030, CUDA 12 . 3;
    cuGraphExecKernelNodeSetParams: PFN_cuGraphExecKernelNodeSetParams_v12000, CUDA 12 . 0;
    cuGraphExecMemcpyNodeSetParams: PFN_cuGraphExecMemcpyNodeSetParams_v10020, CUDA 10 . 2;
    cuGraphNodeSetEnabled: PFN_cuGraphNodeSetEnabled_v11060, CUDA 11 . 6;
    cuGraphInstantiateWithFlags: PFN_cuGraphInstantiateWithFlags_v11040, CUDA 11 . 4;
    cuGraphExecUpdate: PFN_cuGraphExecUpdate_v12000, CUDA 12 . 0;
    cuGraphExecDestroy: PFN_cuGraphExecDestroy_v10000, CUDA 10 . 0;
    cuGraphUpload: PFN_cuGraphUpload_v11010, CUDA 11 . 1;
    cuGraphLaunch: PFN_cuGraphLaunch_v10000, CUDA 10 . 0;
    cuTensorMapEncodeTiled: PFN_cuTensorMapEncodeTiled_v12000, CUDA 12 . 0;
    cuTensorMapEncodeIm2col: PFN_cuTensorMapEncodeIm2col_v12000, CUDA 12 . 0;
    cuTensorMapEncodeIm2colWide: PFN_cuTensorMapEncodeIm2colWide_v12080, CUDA 12 . 8;
    cuTensorMapReplaceAddress: PFN_cuTensorMapReplaceAddress_v12000, CUDA 12 . 0;
}
pub(crate) const RESULT_NAMES: &[(CUresult, &str)] = &[
    (CUresult(0), "CUDA_SUCCESS"),
    (CUresult(1), "CUDA_ERROR_INVALID_VALUE"),
    (CUresult(2), "CUDA_ERROR_OUT_OF_MEMORY"),
    (CUresult(3), "CUDA_ERROR_NOT_INITIALIZED"),
    (CUresult(4), "CUDA_ERROR_DEINITIALIZED"),
    (CUresult(5), "CUDA_ERROR_PROFILER_DISABLED"),
    (CUresult(6), "CUDA_ERROR_PROFILER_NOT_INITIALIZED"),
    (CUresult(7), "CUDA_ERROR_PROFILER_ALREADY_STARTED"),
    (CUresult(8), "CUDA_ERROR_PROFILER_ALREADY_STOPPED"),
    (CUresult(34), "CUDA_ERROR_STUB_LIBRARY"),
    (CUresult(36), "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER"),
    (CUresult(46), "CUDA_ERROR_DEVICE_UNAVAILABLE"),
    (CUresult(100), "CUDA_ERROR_NO_DEVICE"),
    (CUresult(101), "CUDA_ERROR_INVALID_DEVICE"),
    (CUresult(102), "CUDA_ERROR_DEVICE_NOT_LICENSED"),
    (CUresult(200), "CUDA_ERROR_INVALID_IMAGE"),
    (CUresult(201), "CUDA_ERROR_INVALID_CONTEXT"),
    (CUresult(202), "CUDA_ERROR_CONTEXT_ALREADY_CURRENT"),
    (CUresult(205), "CUDA_ERROR_MAP_FAILED"),
    (CUresult(206), "CUDA_ERROR_UNMAP_FAILED"),
    (CUresult(207), "CUDA_ERROR_ARRAY_IS_MAPPED"),
    (CUresult(208), "CUDA_ERROR_ALREADY_MAPPED"),
    (CUresult(209), "CUDA_ERROR_NO_BINARY_FOR_GPU"),
    (CUresult(210), "CUDA_ERROR_ALREADY_ACQUIRED"),
    (CUresult(211), "CUDA_ERROR_NOT_MAPPED"),
    (CUresult(212), "CUDA_ERROR_NOT_MAPPED_AS_ARRAY"),
    (CUresult(213), "CUDA_ERROR_NOT_MAPPED_AS_POINTER"),
    (CUresult(214), "CUDA_ERROR_ECC_UNCORRECTABLE"),
    (CUresult(215), "CUDA_ERROR_UNSUPPORTED_LIMIT"),
    (CUresult(216), "CUDA_ERROR_CONTEXT_ALREADY_IN_USE"),
    (CUresult(217), "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"),
    (CUresult(218), "CUDA_ERROR_INVALID_PTX"),
    (CUresult(219), "CUDA_ERROR_INVALID_GRAPHICS_CONTEXT"),
    (CUresult(220), "CUDA_ERROR_NVLINK_UNCORRECTABLE"),
    (CUresult(221), "CUDA_ERROR_JIT_COMPILER_NOT_FOUND"),
    (CUresult(222), "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
    (CUresult(223), "CUDA_ERROR_JIT_COMPILATION_DISABLED"),
    (CUresult(224), "CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY"),
    (CUresult(225), "CUDA_ERROR_UNSUPPORTED_DEVSIDE_SYNC"),
    (CUresult(226), "CUDA_ERROR_CONTAINED"),
    (CUresult(300), "CUDA_ERROR_INVALID_SOURCE"),
    (CUresult(301), "CUDA_ERROR_FILE_NOT_FOUND"),
    (CUresult(302), "CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND"),
    (CUresult(303), "CUDA_ERROR_SHARED_OBJECT_INIT_FAILED"),
    (CUresult(304), "CUDA_ERROR_OPERATING_SYSTEM"),
    (CUresult(400), "CUDA_ERROR_INVALID_HANDLE"),
    (CUresult(401), "CUDA_ERROR_ILLEGAL_STATE"),
    (CUresult(402), "CUDA_ERROR_LOSSY_QUERY"),
    (CUresult(500), "CUDA_ERROR_NOT_FOUND"),
    (CUresult(600), "CUDA_ERROR_NOT_READY"),
    (CUresult(700), "CUDA_ERROR_ILLEGAL_ADDRESS"),
    (CUresult(701), "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
    (CUresult(702), "CUDA_ERROR_LAUNCH_TIMEOUT"),
    (CUresult(703), "CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING"),
    (CUresult(704), "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED"),
    (CUresult(705), "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED"),
    (CUresult(708), "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE"),
    (CUresult(709), "CUDA_ERROR_CONTEXT_IS_DESTROYED"),
    (CUresult(710), "CUDA_ERROR_ASSERT"),
    (CUresult(711), "CUDA_ERROR_TOO_MANY_PEERS"),
    (CUresult(712), "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"),
    (CUresult(713), "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"),
    (CUresult(714), "CUDA_ERROR_HARDWARE_STACK_ERROR"),
    (CUresult(715), "CUDA_ERROR_ILLEGAL_INSTRUCTION"),
    (CUresult(716), "CUDA_ERROR_MISALIGNED_ADDRESS"),
    (CUresult(717), "CUDA_ERROR_INVALID_ADDRESS_SPACE"),
    (CUresult(718), "CUDA_ERROR_INVALID_PC"),
    (CUresult(719), "CUDA_ERROR_LAUNCH_FAILED"),
    (CUresult(720), "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"),
    (CUresult(721), "CUDA_ERROR_TENSOR_MEMORY_LEAK"),
    (CUresult(800), "CUDA_ERROR_NOT_PERMITTED"),
    (CUresult(801), "CUDA_ERROR_NOT_SUPPORTED"),
    (CUresult(802), "CUDA_ERROR_SYSTEM_NOT_READY"),
    (CUresult(803), "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
    (CUresult(804), "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"),
    (CUresult(805), "CUDA_ERROR_MPS_CONNECTION_FAILED"),
    (CUresult(806), "CUDA_ERROR_MPS_RPC_FAILURE"),
    (CUresult(807), "CUDA_ERROR_MPS_SERVER_NOT_READY"),
    (CUresult(808), "CUDA_ERROR_MPS_MAX_CLIENTS_REACHED"),
    (CUresult(809), "CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED"),
    (CUresult(810), "CUDA_ERROR_MPS_CLIENT_TERMINATED"),
    (CUresult(811), "CUDA_ERROR_CDP_NOT_SUPPORTED"),
    (CUresult(812), "CUDA_ERROR_CDP_VERSION_MISMATCH"),
    (CUresult(900), "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
    (CUresult(901), "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
    (CUresult(902), "CUDA_ERROR_STREAM_CAPTURE_MERGE"),
    (CUresult(903), "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED"),
    (CUresult(904), "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"),
    (CUresult(905), "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"),
    (CUresult(906), "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"),
    (CUresult(907), "CUDA_ERROR_CAPTURED_EVENT"),
    (CUresult(908), "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"),
    (CUresult(909), "CUDA_ERROR_TIMEOUT"),
    (CUresult(910), "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE"),
    (CUresult(911), "CUDA_ERROR_EXTERNAL_DEVICE"),
    (CUresult(912), "CUDA_ERROR_INVALID_CLUSTER_SIZE"),
    (CUresult(913), "CUDA_ERROR_FUNCTION_NOT_LOADED"),
    (CUresult(914), "CUDA_ERROR_INVALID_RESOURCE_TYPE"),
    (CUresult(915), "CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION"),
    (CUresult(916), "CUDA_ERROR_KEY_ROTATION"),
    (CUresult(999), "CUDA_ERROR_UNKNOWN"),
];
