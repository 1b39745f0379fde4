//! A CUDA device, through candle: its memory and its stream are candle's, its products cuBLAS's, its kernels compiled
//! here by NVRTC for the device that is there.
//!
//! A compiled module is kept on disk, by what it was compiled from; a second run does not compile.

use std::collections::HashMap;
use std::ffi::c_void;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use candle_core::cuda_backend::cudarc::cublas::{result::gemm_ex, sys as cublas};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaModule, CudaStream, DevicePtr, LaunchConfig, PushKernelArg,
    result, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Device, Error, Result, Storage, Tensor};
use half::{bf16, f16};
use sha2::{Digest, Sha256};

use crate::program::residency::STAGING;
use crate::units::{Bytes, Dtype};

use super::super::access::place;
use super::super::resting::{Mapped, Resting};
use super::kernels::{DEVICE, Module, source};
use super::machine::{Arg, Launch, Machine, NO_ROOM, Pin, Product, Room, Ticket, Usage};
use super::management::Management;

/// Shared memory that a kernel has without asking.
const USUAL_SHARED: u32 = 48 << 10;

/// A CUDA device, ready to be asked.
pub struct Cuda {
    device: Device,
    cuda: CudaDevice,
    /// What comes from the host, and what goes back, each in its order.
    fetching: Arc<CudaStream>,
    evicting: Arc<CudaStream>,
    /// Page-locked memory for what is fetched from a disk and for what goes there. It is never given back: copies may be
    /// under way for as long as there is a process.
    staging: OnceLock<[u64; 2]>,
    /// The ends of copies that nobody has waited for.
    under_way: Mutex<HashMap<u64, CudaEvent>>,
    tickets: AtomicU64,
    /// Major and minor.
    capability: (i32, i32),
    modules: Mutex<HashMap<Module, Loaded>>,
    /// Where compiled modules are kept.
    cache: Option<PathBuf>,
    /// Who shares the device, where that can be asked.
    management: Option<Management>,
    taken: Taken,
}

/// What is taken of a device's memory, by all processes, while it is being opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    pub before: Option<Bytes>,
    /// With the driver's context.
    pub context: Option<Bytes>,
    /// With the library for products too.
    pub opened: Option<Bytes>,
}

struct Loaded {
    module: Arc<CudaModule>,
    functions: HashMap<&'static str, CudaFunction>,
}

/// What is known of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    pub name: String,
    pub capability: (i32, i32),
    pub uuid: String,
    /// 13.0 is 13000.
    pub driver: i32,
    pub free: Bytes,
    pub total: Bytes,
}

fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Msg(format!("{what}: {error}"))
}

/// Which device it is, as `nvidia-smi` writes it.
fn uuid_of(uuid: sys::CUuuid) -> String {
    let hex: String = uuid.bytes.iter().map(|byte| format!("{:02x}", *byte as u8)).collect();
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// What the `ordinal`-th device is called. Opens none.
///
/// # Errors
/// When there is no driver or no such device.
pub fn name(ordinal: usize) -> Result<String> {
    let told = |error| failed("asking for devices", error);
    result::init().map_err(told)?;
    result::device::get(ordinal as i32).and_then(result::device::get_name).map_err(told)
}

/// Asks the driver for a device, and opens none.
///
/// # Errors
/// When there is no driver or no device.
pub fn is_there() -> Result<()> {
    match CudaContext::device_count() {
        Ok(1..) => Ok(()),
        Ok(_) => Err(Error::Msg("CUDA_ERROR_NO_DEVICE".to_owned())),
        Err(error) => Err(failed("asking for devices", error)),
    }
}

impl Cuda {
    /// The `ordinal`-th device.
    ///
    /// # Errors
    /// When there is no driver, no such device, or a library is missing.
    pub fn new(ordinal: usize, cache: Option<PathBuf>) -> Result<Self> {
        // Whether there is a device is told by opening it.
        let uuid = result::init().and_then(|()| result::device::get(ordinal as i32));
        let uuid = uuid.and_then(result::device::get_uuid).map(uuid_of).ok();
        let management = uuid.and_then(Management::of);
        let used = || management.as_ref().and_then(Management::used);
        let mut taken = Taken { before: used(), ..Taken::default() };
        // It is the device's own, and stays as long as somebody has it.
        let primary = CudaContext::new(ordinal).map_err(|e| failed("opening the device", e))?;
        taken.context = used();
        let device = Device::new_cuda_with_stream(ordinal)?;
        drop(primary);
        taken.opened = used();
        let Device::Cuda(cuda) = &device else { unreachable!("a CUDA device was asked for") };
        let cuda = cuda.clone();
        #[allow(unsafe_code, reason = "events of every use are for several streams; here one computes")]
        // SAFETY: every allocation, launch and copy of this device goes to one stream, but for those of `fetch` and
        // `evict`, which have events of their own.
        unsafe {
            cuda.disable_event_tracking();
        }
        #[allow(unsafe_code, reason = "a call of cuBLAS")]
        // SAFETY: the handle is alive. Sums of products of 16-bit numbers stay in 32 bits to their end.
        unsafe {
            cublas::cublasSetMathMode(
                *cuda.cublas_handle().handle(),
                cublas::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION,
            )
        }
        .result()
        .map_err(|e| failed("how products are summed", format!("{e:?}")))?;
        let context = cuda.cuda_stream().context().clone();
        let capability = context.compute_capability().map_err(|e| failed("its compute capability", e))?;
        let stream = || context.new_stream().map_err(|e| failed("a stream", e));
        let (fetching, evicting) = (stream()?, stream()?);
        let machine = Self {
            device,
            cuda,
            fetching,
            evicting,
            staging: OnceLock::new(),
            under_way: Mutex::default(),
            tickets: AtomicU64::new(0),
            capability,
            modules: Mutex::default(),
            cache,
            management,
            taken,
        };
        // What is freed stays for the next allocation instead of going back at every synchronisation.
        machine.set_pool(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX)?;
        Ok(machine)
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// # Errors
    /// When the driver does not say.
    pub fn about(&self) -> Result<About> {
        let context = self.cuda.cuda_stream().context().clone();
        let say = |e| failed("asking the driver", e);
        let (free, total) = context.mem_get_info().map_err(say)?;
        let uuid = context.uuid().map(uuid_of).map_err(say)?;
        let mut driver = 0;
        #[allow(unsafe_code, reason = "a call of the driver")]
        // SAFETY: it writes one integer.
        unsafe { sys::cuDriverGetVersion(&mut driver) }.result().map_err(say)?;
        Ok(About {
            name: context.name().map_err(say)?,
            capability: self.capability,
            uuid,
            driver,
            free: Bytes(free as u64),
            total: Bytes(total as u64),
        })
    }

    fn pool(&self) -> Result<sys::CUmemoryPool> {
        let context = self.cuda.cuda_stream().context().clone();
        #[allow(unsafe_code, reason = "a call of the driver")]
        // SAFETY: the context is alive.
        unsafe { result::device::get_default_mem_pool(context.cu_device()) }
            .map_err(|e| failed("its memory pool", e))
    }

    fn set_pool(&self, attribute: sys::CUmemPool_attribute, mut value: u64) -> Result<()> {
        let pool = self.pool()?;
        let at = std::ptr::from_mut(&mut value).cast::<c_void>();
        #[allow(unsafe_code, reason = "a call of the driver")]
        // SAFETY: these attributes are 64-bit numbers.
        unsafe { result::mem_pool::set_attribute(pool, attribute, at) }
            .map_err(|e| failed("its memory pool", e))
    }

    fn ask_pool(&self, attribute: sys::CUmemPool_attribute) -> Result<u64> {
        let (pool, mut value) = (self.pool()?, 0_u64);
        let at = std::ptr::from_mut(&mut value).cast::<c_void>();
        #[allow(unsafe_code, reason = "a call of the driver")]
        // SAFETY: these attributes are 64-bit numbers.
        unsafe { result::mem_pool::get_attribute(pool, attribute, at) }
            .map_err(|e| failed("its memory pool", e))?;
        Ok(value)
    }

    /// What was taken of its memory while it was being opened.
    pub fn taken(&self) -> Taken {
        self.taken
    }

    /// Multiplies small matrices of each type, so that what the library needs for that is there.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn warm_up(&self) -> Result<()> {
        const N: usize = 256;
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            let [a, b, c] =
                [self.fresh(&[N, N], dtype)?, self.fresh(&[N, N], dtype)?, self.fresh(&[N, N], dtype)?];
            for (a_turned, b_turned) in [(false, false), (false, true), (true, false)] {
                self.multiply(&Product {
                    m: N,
                    n: N,
                    k: N,
                    a: self.address(&a)?,
                    lda: N,
                    a_turned,
                    b: self.address(&b)?,
                    ldb: N,
                    b_turned,
                    dtype,
                    tf32: false,
                    c: self.address(&c)?,
                    ldc: N,
                    c_dtype: dtype,
                    beta: 0.0,
                })?;
            }
        }
        self.settle()
    }

    /// What is taken of the device's memory by all processes, without what this one's pool holds for tensors.
    ///
    /// # Errors
    /// When the driver does not say.
    pub fn beside_tensors(&self) -> Result<Option<Bytes>> {
        self.settle()?;
        let own = self.ask_pool(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        let used = self.management.as_ref().and_then(Management::used);
        Ok(used.map(|used| Bytes(used.0.saturating_sub(own))))
    }

    /// What an allocation that failed means, and what takes the room.
    fn no_room(&self, wanted: Bytes, error: Error) -> Error {
        if !error.to_string().contains("OUT_OF_MEMORY") {
            return error;
        }
        let own = self.ask_pool(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT).unwrap_or(0);
        let taken = self.room().map_or(String::new(), |room| {
            format!("; of {} this run's tensors have {}, {}", room.total, Bytes(own), room.others())
        });
        Error::Msg(format!("{NO_ROOM} for another {wanted}{taken}"))
    }

    /// Lets a copy be waited for that `stream` has begun.
    fn set_out(&self, stream: &CudaStream) -> Result<Ticket> {
        let event = stream.record_event(None).map_err(|e| failed("an event", e))?;
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        self.under_way.lock().expect("nobody panics with the copies in hand").insert(ticket, event);
        Ok(Ticket(ticket))
    }

    /// Where copies from a disk, and copies to it, pass through the host: [`STAGING`] bytes each.
    fn staging(&self) -> Result<[u64; 2]> {
        if let Some(places) = self.staging.get() {
            return Ok(*places);
        }
        let lock = || {
            #[allow(unsafe_code, reason = "a call of the driver")]
            // SAFETY: a context is current: the device was opened.
            unsafe { result::malloc_host(STAGING.0 as usize, 0) }
                .map(|at| at as u64)
                .map_err(|e| failed("page-locked memory of the host", e))
        };
        self.cuda.cuda_stream().context().bind_to_thread().map_err(|e| failed("its context", e))?;
        let places = [lock()?, lock()?];
        Ok(*self.staging.get_or_init(|| places))
    }

    /// Copies what rests on disk to the device, a part at a time, in the order of the stream for fetches.
    fn fetch_mapped(&self, home: &Arc<Mapped>, to: u64, bytes: usize) -> Result<()> {
        let [staging, _] = self.staging()?;
        home.will_need();
        for (at, n) in parts(bytes) {
            let home = home.clone();
            in_order(&self.fetching, move || {
                #[allow(unsafe_code, reason = "memory that the driver has locked")]
                // SAFETY: it has this size, and is used by this stream alone, whose order keeps its uses apart.
                let part = unsafe { std::slice::from_raw_parts_mut(staging as *mut u8, n) };
                home.read_at(at, part);
            })?;
            #[allow(unsafe_code, reason = "a call of the driver")]
            // SAFETY: both places are of this size; the program keeps the device's until it has waited.
            unsafe {
                sys::cuMemcpyHtoDAsync_v2(
                    to + at as u64,
                    staging as *const c_void,
                    n,
                    self.fetching.cu_stream(),
                )
            }
            .result()
            .map_err(|e| failed("a copy to the device", e))?;
        }
        Ok(())
    }

    /// Copies a tensor of the device to the disk, likewise.
    fn evict_mapped(&self, from: u64, home: &Arc<Mapped>, bytes: usize) -> Result<()> {
        let [_, staging] = self.staging()?;
        for (at, n) in parts(bytes) {
            #[allow(unsafe_code, reason = "a call of the driver")]
            // SAFETY: both places are of this size; the program keeps the device's until it has waited.
            unsafe {
                sys::cuMemcpyDtoHAsync_v2(
                    staging as *mut c_void,
                    from + at as u64,
                    n,
                    self.evicting.cu_stream(),
                )
            }
            .result()
            .map_err(|e| failed("a copy from the device", e))?;
            let home = home.clone();
            in_order(&self.evicting, move || {
                #[allow(unsafe_code, reason = "memory that the driver has locked")]
                // SAFETY: as above.
                let part = unsafe { std::slice::from_raw_parts(staging as *const u8, n) };
                home.write(at, part);
            })?;
        }
        Ok(())
    }

    /// The kernels for `module`, from disk or compiled now.
    fn compile(&self, module: Module) -> Result<Loaded> {
        let (major, minor) = self.capability;
        let mut options =
            vec!["--std=c++17".to_owned(), format!("--gpu-architecture=compute_{major}{minor}")];
        options.extend(module.defines().map(|(name, value)| format!("-D{name}={value}")));
        let source = format!("{DEVICE}\n{}", source());
        let mut hash = Sha256::new();
        hash.update(&source);
        for option in &options {
            hash.update(option);
            hash.update([0]);
        }
        let kept = self.cache.as_ref().map(|folder| folder.join(format!("{:x}.ptx", hash.finalize())));
        let known = kept.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let text = match known {
            Some(text) => text,
            None => {
                let options =
                    CompileOptions { options, name: Some("hift.cu".to_owned()), ..CompileOptions::default() };
                let ptx = compile_ptx_with_opts(&source, options)
                    .map_err(|e| failed("NVRTC does not compile the kernels", format!("{e:?}")))?;
                let text = ptx.to_src();
                if let Some(path) = &kept {
                    // Not to have kept it costs the next run a few seconds.
                    let _ = keep(path, &text);
                }
                text
            }
        };
        let context = self.cuda.cuda_stream().context().clone();
        let module = context
            .load_module(Ptx::from_src(text))
            .map_err(|e| failed("the driver does not load the kernels", e))?;
        Ok(Loaded { module, functions: HashMap::new() })
    }
}

/// Writes beside and renames: another run may do the same.
fn keep(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().expect("a file in a folder");
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// The parts in which so many bytes pass through the host: where each begins, and its size.
fn parts(bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let most = STAGING.0 as usize;
    (0..bytes).step_by(most).map(move |at| (at, most.min(bytes - at)))
}

/// Lets a thread of the driver do `work` when its turn in the stream comes. It must not ask anything of the driver.
fn in_order(stream: &CudaStream, work: impl FnOnce() + Send + 'static) -> Result<()> {
    type Work = Box<dyn FnOnce() + Send>;
    extern "C" fn call(work: *mut c_void) {
        #[allow(unsafe_code, reason = "a call from the driver")]
        // SAFETY: it is what was handed over below, and comes back once.
        let work = unsafe { Box::from_raw(work.cast::<Work>()) };
        work();
    }
    let work: *mut Work = Box::into_raw(Box::new(Box::new(work)));
    #[allow(unsafe_code, reason = "a call of the driver")]
    // SAFETY: it calls back with what it is given.
    let launched = unsafe { sys::cuLaunchHostFunc(stream.cu_stream(), Some(call), work.cast()) }.result();
    launched.map_err(|e| {
        #[allow(unsafe_code, reason = "what the driver did not take")]
        // SAFETY: it was made above, and nobody else has it.
        drop(unsafe { Box::from_raw(work) });
        failed("work in the order of a stream", e)
    })
}

fn cuda_type(dtype: Dtype) -> cublas::cudaDataType {
    match dtype {
        Dtype::F32 => cublas::cudaDataType::CUDA_R_32F,
        Dtype::F16 => cublas::cudaDataType::CUDA_R_16F,
        Dtype::Bf16 => cublas::cudaDataType::CUDA_R_16BF,
        Dtype::U32 => unreachable!("matrices are floats"),
    }
}

impl Machine for Cuda {
    fn device(&self) -> &Device {
        &self.device
    }

    #[allow(unsafe_code, reason = "kernels write what they are given; zeroing would be a pass over memory")]
    fn fresh(&self, shape: &[usize], dtype: Dtype) -> Result<Tensor> {
        let n = shape.iter().product::<usize>().max(1);
        let room = |error| self.no_room(Bytes(n as u64 * dtype.size()), error);
        // SAFETY: every bit pattern is a number, and nothing reads before a kernel has written.
        let storage = unsafe {
            let cuda = &self.cuda;
            match dtype {
                Dtype::F32 => CudaStorage::wrap_cuda_slice(cuda.alloc::<f32>(n).map_err(room)?, cuda.clone()),
                Dtype::U32 => CudaStorage::wrap_cuda_slice(cuda.alloc::<u32>(n).map_err(room)?, cuda.clone()),
                Dtype::F16 => CudaStorage::wrap_cuda_slice(cuda.alloc::<f16>(n).map_err(room)?, cuda.clone()),
                Dtype::Bf16 => {
                    CudaStorage::wrap_cuda_slice(cuda.alloc::<bf16>(n).map_err(room)?, cuda.clone())
                }
            }
        };
        Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
    }

    fn uuid(&self) -> Option<String> {
        self.about().ok().map(|about| about.uuid)
    }

    fn upload(&self, words: Vec<u32>, shape: &[usize]) -> Result<Tensor> {
        Tensor::from_vec(words, shape, &self.device)
    }

    fn address(&self, tensor: &Tensor) -> Result<u64> {
        let (storage, layout) = tensor.storage_and_layout();
        debug_assert!(
            layout.is_contiguous() && layout.start_offset() == 0,
            "tensors own their storage whole"
        );
        let Storage::Cuda(storage) = &*storage else {
            return Err(Error::Msg("a tensor is not on the device".to_owned()));
        };
        let stream = self.cuda.cuda_stream();
        Ok(match tensor.dtype() {
            candle_core::DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0,
            candle_core::DType::U32 => storage.as_cuda_slice::<u32>()?.device_ptr(&stream).0,
            candle_core::DType::F16 => storage.as_cuda_slice::<f16>()?.device_ptr(&stream).0,
            candle_core::DType::BF16 => storage.as_cuda_slice::<bf16>()?.device_ptr(&stream).0,
            other => return Err(Error::Msg(format!("no kernel takes numbers of {other:?}"))),
        })
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let mut modules = self.modules.lock().expect("nobody panics with the modules in hand");
        if !modules.contains_key(&launch.module) {
            modules.insert(launch.module, self.compile(launch.module)?);
        }
        let loaded = modules.get_mut(&launch.module).expect("it was put there");
        let told = |e| failed(launch.kernel, e);
        if !loaded.functions.contains_key(launch.kernel) {
            let function = loaded.module.load_function(launch.kernel).map_err(told)?;
            loaded.functions.insert(launch.kernel, function);
        }
        let function = &loaded.functions[launch.kernel];
        if launch.shared_bytes > USUAL_SHARED {
            use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED;
            function.set_attribute(SHARED, launch.shared_bytes as i32).map_err(told)?;
        }
        // The driver reads as many bytes of each cell as the parameter has.
        let cells: Vec<u64> = launch
            .args
            .iter()
            .map(|arg| match *arg {
                Arg::Pointer(at) | Arg::U64(at) => at,
                Arg::U32(x) => x.into(),
                Arg::I32(x) => u64::from(x as u32),
                Arg::F32(x) => x.to_bits().into(),
            })
            .collect();
        let stream = self.cuda.cuda_stream();
        let mut builder = stream.launch_builder(function);
        for cell in &cells {
            builder.arg(cell);
        }
        let [x, y, z] = launch.grid;
        let [bx, by, bz] = launch.block;
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (bx, by, bz),
            shared_mem_bytes: launch.shared_bytes,
        };
        #[allow(unsafe_code, reason = "a launch of a kernel")]
        // SAFETY: the arguments are those of the kernel, and name places in tensors that live until it has run: what
        // is dropped is freed in the order of the stream.
        unsafe { builder.launch(config) }.map_err(told)?;
        Ok(())
    }

    fn fetch(&self, home: &Resting, to: &Tensor) -> Result<Ticket> {
        let to = self.address(to)?;
        // Not before the storage is free of what it held.
        self.fetching.join(&self.cuda.cuda_stream()).map_err(|e| failed("an event", e))?;
        let (from, bytes) = match home {
            Resting::Memory(home) => place(home)?,
            Resting::Disk(mapped) => {
                self.fetch_mapped(mapped, to, home.bytes() as usize)?;
                return self.set_out(&self.fetching);
            }
        };
        #[allow(unsafe_code, reason = "a call of the driver")]
        // SAFETY: both places are of this size; the store keeps the one, the program the other until it has waited.
        unsafe { sys::cuMemcpyHtoDAsync_v2(to, from as *const c_void, bytes, self.fetching.cu_stream()) }
            .result()
            .map_err(|e| failed("a copy to the device", e))?;
        self.set_out(&self.fetching)
    }

    fn evict(&self, from: &Tensor, home: &Resting) -> Result<Ticket> {
        let from = self.address(from)?;
        self.evicting.join(&self.cuda.cuda_stream()).map_err(|e| failed("an event", e))?;
        let (to, bytes) = match home {
            Resting::Memory(home) => place(home)?,
            Resting::Disk(mapped) => {
                self.evict_mapped(from, mapped, home.bytes() as usize)?;
                return self.set_out(&self.evicting);
            }
        };
        #[allow(unsafe_code, reason = "a call of the driver")]
        // SAFETY: as above; nobody reads the host's tensor before `settle`.
        unsafe { sys::cuMemcpyDtoHAsync_v2(to as *mut c_void, from, bytes, self.evicting.cu_stream()) }
            .result()
            .map_err(|e| failed("a copy from the device", e))?;
        self.set_out(&self.evicting)
    }

    fn wait(&self, copy: Ticket) -> Result<()> {
        let event = self.under_way.lock().expect("nobody panics with the copies in hand").remove(&copy.0);
        let event = event.expect("a copy is waited for once");
        self.cuda.cuda_stream().wait(&event).map_err(|e| failed("an event", e))
    }

    fn precede(&self, copy: &Ticket) -> Result<()> {
        let under_way = self.under_way.lock().expect("nobody panics with the copies in hand");
        self.fetching.wait(&under_way[&copy.0]).map_err(|e| failed("an event", e))
    }

    fn settle(&self) -> Result<()> {
        let context = self.cuda.cuda_stream().context().clone();
        context.synchronize().map_err(|e| failed("what was launched", e))
    }

    fn pin(&self, home: &Tensor) -> Option<Pin> {
        /// Memory that the driver has been told of.
        struct Registered(u64);

        impl Drop for Registered {
            #[allow(unsafe_code, reason = "a call of the driver")]
            fn drop(&mut self) {
                // SAFETY: it was registered, and is there still. Where that fails, the process ends with it.
                let _ = unsafe { sys::cuMemHostUnregister(self.0 as *mut c_void) };
            }
        }

        let (at, bytes) = place(home).ok().filter(|(_, bytes)| *bytes > 0)?;
        // The driver has to know the device on whatever thread this is.
        self.cuda.cuda_stream().context().bind_to_thread().ok()?;
        #[allow(unsafe_code, reason = "a call of the driver")]
        // SAFETY: the tensor is of this size, and outlives its pin.
        let done = unsafe { sys::cuMemHostRegister_v2(at as *mut c_void, bytes, 0) }.result();
        done.ok().map(|()| Box::new(Registered(at)) as Pin)
    }

    fn peak(&self) -> Result<Option<Usage>> {
        let used = self.ask_pool(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?;
        let reserved = self.ask_pool(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)?;
        Ok(Some(Usage { used: Bytes(used), reserved: Bytes(reserved) }))
    }

    fn room(&self) -> Option<Room> {
        let asked = self.management.as_ref().and_then(|management| management.room(self.taken.before));
        asked.or_else(|| {
            let (free, total) = self.cuda.cuda_stream().context().mem_get_info().ok()?;
            Some(Room { total: Bytes(total as u64), free: Bytes(free as u64), ..Room::default() })
        })
    }

    fn reset_peak(&self) -> Result<()> {
        self.set_pool(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0)?;
        self.set_pool(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, 0)
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        let Product { m, n, k, a, lda, a_turned, b, ldb, b_turned, dtype, tf32, c, ldc, c_dtype, beta } =
            *product;
        let turned = |turned| match turned {
            true => cublas::cublasOperation_t::CUBLAS_OP_T,
            false => cublas::cublasOperation_t::CUBLAS_OP_N,
        };
        let compute = match (dtype, tf32) {
            (Dtype::F32, true) => cublas::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => cublas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let (alpha, blas) = (1.0_f32, self.cuda.cublas_handle());
        #[allow(unsafe_code, reason = "a call of cuBLAS")]
        // SAFETY: the player names places in tensors that live. cuBLAS has matrices column by column: row by row, c = a b
        // is its transpose, from the transposes of b and a.
        unsafe {
            gemm_ex(
                *blas.handle(),
                turned(b_turned),
                turned(a_turned),
                n as i32,
                m as i32,
                k as i32,
                std::ptr::from_ref(&alpha).cast(),
                b as *const c_void,
                cuda_type(dtype),
                ldb as i32,
                a as *const c_void,
                cuda_type(dtype),
                lda as i32,
                std::ptr::from_ref(&beta).cast(),
                c as *mut c_void,
                cuda_type(c_dtype),
                ldc as i32,
                compute,
                cublas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(|e| failed("a product of matrices", format!("{e:?}")))
    }
}
