//! `pollux arbiter`: who may run a VM, and a person's way to say that nobody does.

use anyhow::Result;
use clap::{Args, Subcommand};
use pollux_host::arbiter_file::FileArbiter;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct ArbiterArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Make a folder an arbiter, once, on one host; both hosts then reach that very folder
    Init {
        /// A folder on storage that both hosts reach; made if it is not there
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Show the newest generation of a VM and who holds it
    Show {
        /// The VM
        vm: String,
        /// The folder that both hosts reach
        #[arg(long, value_name = "FOLDER")]
        arbiter: PathBuf,
    },
    /// Forget all generations of a VM. ONLY if no instance of it runs on any host: a paused or cut-off one
    /// would find itself alone in the right
    Forget {
        /// The VM
        vm: String,
        /// The folder that both hosts reach
        #[arg(long, value_name = "FOLDER")]
        arbiter: PathBuf,
    },
}

pub fn run(args: &ArbiterArgs) -> Result<u8> {
    match &args.action {
        Action::Init { folder } => {
            println!("{}: arbiter {}", folder.display(), FileArbiter::init(folder)?);
        }
        Action::Show { vm, arbiter } => match FileArbiter::open(arbiter)?.newest(vm)? {
            Some(claim) if claim.is_end() => {
                println!("{vm}: ended in good order before generation {}", claim.generation);
            }
            Some(claim) => println!("{vm}: generation {}, held by {}", claim.generation, claim.holder),
            None => println!("{vm}: never started"),
        },
        Action::Forget { vm, arbiter } => {
            let arbiter = FileArbiter::open(arbiter)?;
            let removed = arbiter.forget(vm)?;
            arbiter.sweep()?;
            println!("{vm}: {removed} generations forgotten");
        }
    }
    Ok(0)
}
