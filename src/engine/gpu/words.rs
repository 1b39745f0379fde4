//! What the driver and its libraries mean by their codes, in a sentence each.

/// A failure of a device, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    pub what: &'static str,
    pub help: &'static str,
    /// The device cannot be used, now or at all; otherwise what was asked of it was wrong.
    pub gone: bool,
}

const fn gone(what: &'static str, help: &'static str) -> Words {
    Words { what, help, gone: true }
}

const LIBRARIES: &str = "install the CUDA libraries, or say where they are: HIFT_CUDA_LIB_DIR=FOLDER:FOLDER";
const LOOK: &str = "`nvidia-smi` and the system's log may say why; the same command goes on from the last checkpoint when \
                    the device answers again";

/// The codes, each as it stands in an error's text. Of codes that contain each other the longer one comes first.
const CODES: &[(&str, Words)] = &[
    (
        "CUDA_ERROR_NO_DEVICE",
        gone(
            "there is no driver for a GPU, or it finds none",
            "`nvidia-smi` says whether the driver is at work",
        ),
    ),
    (
        "CUDA_ERROR_INVALID_DEVICE",
        gone("there is no GPU with this number", "`hift doctor` lists the GPUs of this machine"),
    ),
    (
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        gone("the driver was changed while it was in use", "start the machine anew"),
    ),
    (
        "CUDA_ERROR_DEVICE_UNAVAILABLE",
        gone(
            "another process has the GPU for itself",
            "wait for it to end, or take another device with `device = cuda(N)`",
        ),
    ),
    ("CUDA_ERROR_SYSTEM_NOT_READY", gone("the driver is not ready yet", "`nvidia-smi` says when it is")),
    (
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        gone(
            "the driver is older than the library that compiles the kernels (NVRTC)",
            "update the driver, or lead HIFT_CUDA_LIB_DIR to the libraries of an older CUDA",
        ),
    ),
    (
        "CUDA_ERROR_NO_BINARY_FOR_GPU",
        gone(
            "the kernels are not for this GPU",
            "remove the folder `kernels` of the cache (`hift cache list` says where it is)",
        ),
    ),
    (
        "CUDA_ERROR_INVALID_PTX",
        gone(
            "the driver does not understand the kernels",
            "remove the folder `kernels` of the cache (`hift cache list` says where it is)",
        ),
    ),
    (
        "NVRTC_ERROR_INVALID_OPTION",
        gone(
            "the library that compiles the kernels (NVRTC) does not know this GPU",
            "lead HIFT_CUDA_LIB_DIR to the libraries of a newer CUDA",
        ),
    ),
    (
        "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE",
        gone(
            "the library that compiles the kernels (NVRTC) lacks its other half, libnvrtc-builtins",
            LIBRARIES,
        ),
    ),
    (
        "nvrtc: library not found",
        gone("the library that compiles the kernels (NVRTC) is not found", LIBRARIES),
    ),
    (
        "NVRTC_ERROR_OUT_OF_MEMORY",
        gone("the library that compiles the kernels (NVRTC) is not found, or out of memory", LIBRARIES),
    ),
    (
        "CUBLAS_STATUS_NOT_INITIALIZED",
        gone("the library for products of matrices (cuBLAS) is not found, or cannot start", LIBRARIES),
    ),
    (
        "CUBLAS_STATUS_ARCH_MISMATCH",
        gone("the library for products of matrices (cuBLAS) is not for this GPU", LIBRARIES),
    ),
    (
        "CURAND_STATUS_INITIALIZATION_FAILED",
        gone("the library for random numbers (cuRAND) is not found, or cannot start", LIBRARIES),
    ),
    ("CUDA_ERROR_ECC_UNCORRECTABLE", gone("the GPU's memory has an error that cannot be corrected", LOOK)),
    (
        "CUDA_ERROR_CONTEXT_IS_DESTROYED",
        gone("the driver has let go of this process: the device was reset", LOOK),
    ),
    ("CUDA_ERROR_DEINITIALIZED", gone("the driver has let go of this process: the device was reset", LOOK)),
    ("CUDA_ERROR_MPS_", gone("the service that shares the GPU (MPS) failed", LOOK)),
    (
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        gone(
            "a kernel took longer than the driver allows where a display is attached",
            "train on a GPU without a display, or lower `micro_batch`",
        ),
    ),
    ("CUDA_ERROR_UNKNOWN", gone("the driver does not answer", LOOK)),
    (
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        Words {
            what: "a kernel reached beyond its tensors",
            help: "`hift doctor` compares every kernel with the CPU; report what it says",
            gone: false,
        },
    ),
    (
        "CUDA_ERROR_LAUNCH_FAILED",
        Words {
            what: "a kernel failed on the device",
            help: "`hift doctor` compares every kernel with the CPU; report what it says",
            gone: false,
        },
    ),
];

/// What an error's text means; None where no code is known in it.
pub fn words(error: &str) -> Option<Words> {
    CODES.iter().find(|(code, _)| error.contains(code)).map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_in_what_the_libraries_print() {
        let check =
            |error: &str, what: &str| assert_eq!(words(error).map(|words| words.what), Some(what), "{error}");
        check(
            "DriverError(CUDA_ERROR_NO_DEVICE, \"no CUDA-capable device\")",
            "there is no driver for a GPU, or it finds none",
        );
        check(
            "a product of matrices: CublasError(CUBLAS_STATUS_NOT_INITIALIZED)",
            "the library for products of matrices (cuBLAS) is not found, or cannot start",
        );
        check(
            "NVRTC does not compile the kernels: CompileError { nvrtc: NvrtcError(NVRTC_ERROR_INVALID_OPTION) }",
            "the library that compiles the kernels (NVRTC) does not know this GPU",
        );
        assert_eq!(words("the disk is full"), None);
    }

    #[test]
    fn no_code_hides_behind_another() {
        for (i, (code, _)) in CODES.iter().enumerate() {
            assert!(CODES[..i].iter().all(|(before, _)| !code.contains(before)), "{code}");
        }
    }
}
