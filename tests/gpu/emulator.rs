//! A machine that runs the kernels on the CPU.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_char, c_void};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use candle_core::{CpuStorage, Device, Result, Storage, Tensor};
use half::{bf16, f16};
use hift::engine::Resting;
use hift::engine::access::place;
use hift::engine::gpu::kernels::{names, source};
use hift::engine::gpu::{Arg, Launch, Machine, Module, NO_ROOM, Pin, Product, Room, Ticket, Usage};
use hift::units::Dtype;
use libloading::Library;
use tempfile::TempDir;

type Call = unsafe extern "C" fn(
    name: *const c_char,
    grid: *const u32,
    block: *const u32,
    shared_bytes: u32,
    backwards: i32,
    n_args: i32,
    args: *mut *mut c_void,
) -> i32;

type Multiply = unsafe extern "C" fn(
    sizes: *const u64,
    a: *const Matrix,
    a_turned: i32,
    b: *const Matrix,
    b_turned: i32,
    c: *const Matrix,
    beta: f32,
);

/// As `emulate.cpp` has it.
#[repr(C)]
struct Matrix {
    at: u64,
    ld: u64,
    dtype: i32,
}

/// The kernels keep their state in variables of the library: one launch at a time.
static TURN: Mutex<()> = Mutex::new(());

/// A copy that has set out.
struct Copy {
    /// From where to where; None once it was made.
    ways: Option<[Resting; 2]>,
    goes_home: bool,
    step: u64,
}

pub struct Emulator {
    folder: TempDir,
    modules: Mutex<HashMap<Module, Library>>,
    /// Copies that have set out, by their tickets: they are made when somebody waits for them, not earlier.
    under_way: Mutex<BTreeMap<u64, Copy>>,
    /// Copies to the host that were waited for in a later step than they had set out in.
    pub late: AtomicU64,
    steps: AtomicU64,
    tickets: AtomicU64,
    /// How many more it has room for.
    pub tensors_left: AtomicI64,
    /// What it says of its memory.
    pub room: Mutex<Option<Room>>,
    pub usage: Mutex<Option<Usage>>,
    /// The threads of a block take their turns from the last to the first: a missing barrier shows.
    pub backwards: bool,
}

impl Emulator {
    /// None, with a word why, where there is no C++ compiler.
    pub fn new() -> Option<Self> {
        if Command::new("c++").arg("--version").output().is_err() {
            println!("skipped: there is no C++ compiler");
            return None;
        }
        // One of its own: a library that is open must not be written again.
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kernels.inc"), source()).unwrap();
        let list: String = names().map(|name| format!("KERNEL({name})\n")).collect();
        fs::write(folder.path().join("names.inc"), list).unwrap();
        Some(Self {
            folder,
            modules: Mutex::default(),
            under_way: Mutex::default(),
            late: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            tensors_left: AtomicI64::new(i64::MAX),
            room: Mutex::default(),
            usage: Mutex::default(),
            backwards: false,
        })
    }

    fn compile(&self, module: Module) -> Library {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gpu");
        let to = self.folder.path().join(format!("{}-{}.so", module.real, module.head_dim));
        let defines = module.defines().map(|(name, value)| format!("-D{name}={value}"));
        let done = Command::new("c++")
            .args([
                "-std=c++17",
                "-O1",
                "-w",
                "-U_FORTIFY_SOURCE",
                "-fno-strict-aliasing",
                "-shared",
                "-fPIC",
                "-I",
            ])
            .arg(self.folder.path())
            .args(defines)
            .arg(own.join("emulate.cpp"))
            .arg("-o")
            .arg(&to)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        #[allow(unsafe_code, reason = "the kernels of a GPU, compiled for the CPU")]
        // SAFETY: the library was made just now and has no initializers of its own.
        unsafe { Library::new(&to) }.unwrap()
    }
}

impl Emulator {
    fn set_out(&self, from: Resting, to: Resting, goes_home: bool) -> Ticket {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let copy = Copy { ways: Some([from, to]), goes_home, step: self.steps.load(Ordering::Relaxed) };
        self.under_way.lock().unwrap().insert(ticket, copy);
        Ticket(ticket)
    }

    #[allow(unsafe_code, reason = "a copy as a device makes it")]
    fn copy(copy: [Resting; 2]) -> Result<()> {
        let [from, to] = match copy {
            [Resting::Memory(from), Resting::Memory(to)] => [from, to],
            [Resting::Disk(from), Resting::Memory(to)] => {
                let (to, n) = place(&to)?;
                let from = from.read();
                assert_eq!(n, from.len());
                // SAFETY: as below.
                unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, n) };
                return Ok(());
            }
            [from, Resting::Disk(to)] => {
                to.store(from.tensor());
                return Ok(());
            }
        };
        let ((from, n), (to, room)) = (place(&from)?, place(&to)?);
        assert_eq!(n, room);
        // SAFETY: both tensors are alive, are of this size, and do not share storage.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, n) };
        Ok(())
    }
}

impl Machine for Emulator {
    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn uuid(&self) -> Option<String> {
        None
    }

    fn fresh(&self, shape: &[usize], dtype: Dtype) -> Result<Tensor> {
        let n = shape.iter().product();
        if self.tensors_left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(candle_core::Error::Msg(format!("{NO_ROOM} for another tensor")));
        }
        // What nobody has written is not a number.
        match dtype {
            Dtype::F32 => Tensor::from_vec(vec![f32::NAN; n], shape, &Device::Cpu),
            Dtype::U32 => Tensor::from_vec(vec![u32::MAX; n], shape, &Device::Cpu),
            Dtype::F16 => Tensor::from_vec(vec![f16::NAN; n], shape, &Device::Cpu),
            Dtype::Bf16 => Tensor::from_vec(vec![bf16::NAN; n], shape, &Device::Cpu),
        }
    }

    fn upload(&self, words: Vec<u32>, shape: &[usize]) -> Result<Tensor> {
        Tensor::from_vec(words, shape, &Device::Cpu)
    }

    fn address(&self, tensor: &Tensor) -> Result<u64> {
        let (storage, layout) = tensor.storage_and_layout();
        assert!(layout.is_contiguous() && layout.start_offset() == 0, "tensors own their storage whole");
        let Storage::Cpu(storage) = &*storage else { unreachable!("a tensor of this machine") };
        Ok(match storage {
            CpuStorage::F32(numbers) => numbers.as_ptr() as u64,
            CpuStorage::U32(words) => words.as_ptr() as u64,
            CpuStorage::F16(numbers) => numbers.as_ptr() as u64,
            CpuStorage::BF16(numbers) => numbers.as_ptr() as u64,
            _ => unreachable!("no other numbers are made"),
        })
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let _turn = TURN.lock().unwrap();
        let mut modules = self.modules.lock().unwrap();
        let library = modules.entry(launch.module).or_insert_with(|| self.compile(launch.module));
        let mut cells: Vec<u64> = launch
            .args
            .iter()
            .map(|arg| match *arg {
                Arg::Pointer(at) | Arg::U64(at) => at,
                Arg::U32(x) => x.into(),
                Arg::I32(x) => u64::from(x as u32),
                Arg::F32(x) => x.to_bits().into(),
            })
            .collect();
        let mut args: Vec<*mut c_void> =
            cells.iter_mut().map(|cell| std::ptr::from_mut(cell).cast()).collect();
        let name = CString::new(launch.kernel).unwrap();
        let threads: u32 = launch.block.iter().product();
        assert!(threads <= 1024 && launch.shared_bytes <= 99 << 10, "{launch:?} is too large for many GPUs");
        #[allow(unsafe_code, reason = "the kernels of a GPU, compiled for the CPU")]
        // SAFETY: the library has this function; the arguments are those of the kernel, as on a GPU.
        let rc = unsafe {
            let call = library.get::<Call>(b"hift_launch").unwrap();
            let (grid, block) = (launch.grid.as_ptr(), launch.block.as_ptr());
            call(
                name.as_ptr(),
                grid,
                block,
                launch.shared_bytes,
                self.backwards.into(),
                args.len() as i32,
                args.as_mut_ptr(),
            )
        };
        assert_eq!(rc, launch.args.len() as i32, "{}: arguments", launch.kernel);
        Ok(())
    }

    fn fetch(&self, home: &Resting, to: &Tensor) -> Result<Ticket> {
        let stale = self.under_way.lock().unwrap().values().any(|copy| match &copy.ways {
            Some([_, to]) => copy.goes_home && same(to, home),
            None => false,
        });
        assert!(!stale, "what is fetched has not come home yet");
        Ok(self.set_out(home.clone(), to.clone().into(), false))
    }

    fn evict(&self, from: &Tensor, home: &Resting) -> Result<Ticket> {
        Ok(self.set_out(from.clone().into(), home.clone(), true))
    }

    fn wait(&self, copy: Ticket) -> Result<()> {
        let copy = self.under_way.lock().unwrap().remove(&copy.0);
        let copy = copy.expect("a copy is waited for once");
        let late = copy.goes_home && copy.step < self.steps.load(Ordering::Relaxed);
        self.late.fetch_add(late.into(), Ordering::Relaxed);
        copy.ways.map_or(Ok(()), Self::copy)
    }

    fn precede(&self, copy: &Ticket) -> Result<()> {
        let mut under_way = self.under_way.lock().unwrap();
        let copy = under_way.get_mut(&copy.0).expect("it is still to be waited for");
        copy.ways.take().map_or(Ok(()), Self::copy)
    }

    fn settle(&self) -> Result<()> {
        for copy in self.under_way.lock().unwrap().values_mut() {
            assert!(copy.goes_home, "a program waits for what it fetches");
            copy.ways.take().map_or(Ok(()), Self::copy)?;
        }
        Ok(())
    }

    fn pin(&self, _: &Tensor) -> Option<Pin> {
        None
    }

    fn peak(&self) -> Result<Option<Usage>> {
        Ok(*self.usage.lock().unwrap())
    }

    fn room(&self) -> Option<Room> {
        self.room.lock().unwrap().clone()
    }

    fn reset_peak(&self) -> Result<()> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        let Product { m, n, k, a, lda, a_turned, b, ldb, b_turned, dtype, c, ldc, c_dtype, beta, .. } =
            *product;
        let mut modules = self.modules.lock().unwrap();
        let library = match modules.values().next() {
            Some(library) => library,
            None => {
                let module = Module { real: Dtype::F32, head_dim: 16 };
                modules.entry(module).or_insert_with(|| self.compile(module))
            }
        };
        let matrix = |at, ld: usize, dtype| {
            let dtype = match dtype {
                Dtype::F32 => 0,
                Dtype::Bf16 => 1,
                Dtype::F16 => 2,
                Dtype::U32 => unreachable!("matrices are floats"),
            };
            Matrix { at, ld: ld as u64, dtype }
        };
        let (a, b, c) = (matrix(a, lda, dtype), matrix(b, ldb, dtype), matrix(c, ldc, c_dtype));
        let sizes = [m, n, k].map(|size| size as u64);
        #[allow(unsafe_code, reason = "matrices are places, as on a GPU")]
        // SAFETY: the library has this function; the player names places in tensors that live.
        unsafe {
            let call = library.get::<Multiply>(b"hift_multiply").unwrap();
            call(sizes.as_ptr(), &a, a_turned.into(), &b, b_turned.into(), &c, beta);
        }
        Ok(())
    }
}

/// Whether both are the same tensor's home.
fn same(a: &Resting, b: &Resting) -> bool {
    match (a, b) {
        (Resting::Memory(a), Resting::Memory(b)) => place(a).unwrap() == place(b).unwrap(),
        (Resting::Disk(a), Resting::Disk(b)) => std::sync::Arc::ptr_eq(a, b),
        (Resting::Memory(_), Resting::Disk(_)) | (Resting::Disk(_), Resting::Memory(_)) => false,
    }
}
