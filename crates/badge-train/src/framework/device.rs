//! Where a model is trained and run: the CPU, or a CUDA device by its number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::framework::Device;

/// A device by name: `cpu`, `cuda` or `cuda:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The processor.
    #[default]
    Cpu,
    /// The CUDA device of this number, from 0, in the order that `nvidia-smi` lists them in.
    Cuda(usize),
}

/// No machine has more.
const ORDINALS: usize = 1024;

impl DeviceName {
    /// The device itself.
    ///
    /// # Errors
    /// When the program was built without CUDA, or there is no such device.
    pub fn open(self) -> Result<Device> {
        let Self::Cuda(ordinal) = self else {
            return Ok(Device::Cpu);
        };
        let refused = |problem: String| Error::Setting {
            setting: "--device",
            problem: format!("{self}: {problem}"),
        };
        if cfg!(not(feature = "cuda")) {
            let problem = "this program was built without CUDA; build it with --features cuda, \
                           as docs/gpu.md describes";
            return Err(refused(problem.to_owned()));
        }
        Device::new_cuda(ordinal).map_err(|error| {
            let error = error.to_string();
            let reason = error.lines().next().unwrap_or_default();
            refused(format!(
                "there is no such device here ({reason}); `nvidia-smi` lists those there are"
            ))
        })
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let wrong = || format!("`{name}` is none of cpu, cuda, cuda:0, cuda:1, ...");
        match name.split_once(':') {
            None if name == "cpu" => Ok(Self::Cpu),
            None if name == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", number)) if number.bytes().all(|b| b.is_ascii_digit()) => {
                let ordinal = number.parse().ok().filter(|ordinal| *ordinal < ORDINALS);
                ordinal.map(Self::Cuda).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<DeviceName> for String {
    fn from(device: DeviceName) -> Self {
        device.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let cases = [
            ("cpu", DeviceName::Cpu, "cpu"),
            ("cuda", DeviceName::Cuda(0), "cuda:0"),
            ("cuda:3", DeviceName::Cuda(3), "cuda:3"),
        ];
        for (typed, device, written) in cases {
            assert_eq!(typed.parse(), Ok(device));
            assert_eq!(device.to_string(), written);
            assert_eq!(written.parse(), Ok(device));
        }
        for typed in [
            "",
            "gpu",
            "CPU",
            "cuda:",
            "cuda:x",
            "cuda:-1",
            "cuda:+1",
            "cuda:99999999999",
            "cpu:0",
        ] {
            assert!(typed.parse::<DeviceName>().is_err(), "{typed}");
        }
    }

    #[test]
    fn the_processor_is_always_there() {
        assert!(matches!(DeviceName::Cpu.open(), Ok(Device::Cpu)));
    }

    #[test]
    fn a_device_that_is_not_there_is_refused_with_what_to_do() {
        // Without CUDA no device is there, and with it no machine has so many.
        let error = DeviceName::Cuda(ORDINALS - 1)
            .open()
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("--device: cuda:1023: "), "{error}");
        let advice = if cfg!(feature = "cuda") {
            "nvidia-smi"
        } else {
            "docs/gpu.md"
        };
        assert!(error.contains(advice), "{error}");
    }
}
