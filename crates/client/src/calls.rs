//! The procedures of NFSv3 as methods: a success returns its body, a failure its status.
//!
//! What failures tell beside the status is dropped here; [`Client::nfs`] keeps it.

use crate::client::{Client, check_len};
use crate::error::ClientError;
use bytes::Bytes;
use haven_proto::nfs3::*;
use haven_xdr::{Decode, Encode};

type Result<T> = std::result::Result<T, ClientError>;

impl Client {
    /// NULL: does nothing.
    pub async fn null(&self) -> Result<()> {
        self.nfs(Proc3::Null, &()).await
    }

    /// GETATTR.
    pub async fn getattr(&self, object: &Fh3) -> Result<Fattr3> {
        let args = GetattrArgs {
            object: handle(object)?,
        };
        let ok: GetattrOk = self.checked::<_, _, ()>(Proc3::Getattr, &args).await?;
        Ok(ok.obj_attributes)
    }

    /// SETATTR; with `guard` only if the object's ctime equals it.
    pub async fn setattr(
        &self,
        object: &Fh3,
        new_attributes: Sattr3,
        guard: Option<Nfstime3>,
    ) -> Result<WccData> {
        let args = SetattrArgs {
            object: handle(object)?,
            new_attributes,
            guard,
        };
        self.checked::<_, _, WccData>(Proc3::Setattr, &args).await
    }

    /// LOOKUP.
    pub async fn lookup(&self, dir: &Fh3, name: impl Into<Filename3>) -> Result<LookupOk> {
        let args = LookupArgs {
            what: place(dir, name)?,
        };
        self.checked::<_, _, PostOpAttr>(Proc3::Lookup, &args).await
    }

    /// ACCESS: which of the bits `access` (see [`access`](haven_proto::nfs3::access)) are granted.
    pub async fn access(&self, object: &Fh3, access: u32) -> Result<AccessOk> {
        let args = AccessArgs {
            object: handle(object)?,
            access,
        };
        self.checked::<_, _, PostOpAttr>(Proc3::Access, &args).await
    }

    /// READLINK.
    pub async fn readlink(&self, symlink: &Fh3) -> Result<ReadlinkOk> {
        let args = ReadlinkArgs {
            symlink: handle(symlink)?,
        };
        self.checked::<_, _, PostOpAttr>(Proc3::Readlink, &args)
            .await
    }

    /// READ: one call; the server may return fewer bytes than asked for.
    pub async fn read(&self, file: &Fh3, offset: u64, count: u32) -> Result<ReadOk> {
        check_len("count", count as usize, DATA_BYTES_MAX)?;
        let args = ReadArgs {
            file: handle(file)?,
            offset,
            count,
        };
        self.checked::<_, _, PostOpAttr>(Proc3::Read, &args).await
    }

    /// WRITE: one call; the server may write fewer bytes than given.
    pub async fn write(
        &self,
        file: &Fh3,
        offset: u64,
        stable: StableHow,
        data: Bytes,
    ) -> Result<WriteOk> {
        check_len("data", data.len(), DATA_BYTES_MAX)?;
        let count = data.len() as u32;
        let args = WriteArgs {
            file: handle(file)?,
            offset,
            count,
            stable,
            data,
        };
        self.checked::<_, _, WccData>(Proc3::Write, &args).await
    }

    /// CREATE.
    pub async fn create(
        &self,
        dir: &Fh3,
        name: impl Into<Filename3>,
        how: Createhow3,
    ) -> Result<CreateOk> {
        let args = CreateArgs {
            place: place(dir, name)?,
            how,
        };
        self.checked::<_, _, WccData>(Proc3::Create, &args).await
    }

    /// MKDIR.
    pub async fn mkdir(
        &self,
        dir: &Fh3,
        name: impl Into<Filename3>,
        attributes: Sattr3,
    ) -> Result<CreateOk> {
        let args = MkdirArgs {
            place: place(dir, name)?,
            attributes,
        };
        self.checked::<_, _, WccData>(Proc3::Mkdir, &args).await
    }

    /// SYMLINK.
    pub async fn symlink(
        &self,
        dir: &Fh3,
        name: impl Into<Filename3>,
        target: impl Into<Nfspath3>,
        symlink_attributes: Sattr3,
    ) -> Result<CreateOk> {
        let symlink_data = target.into();
        check_len("link target", symlink_data.0.len(), NFSPATH_BYTES_MAX)?;
        let args = SymlinkArgs {
            place: place(dir, name)?,
            symlink_attributes,
            symlink_data,
        };
        self.checked::<_, _, WccData>(Proc3::Symlink, &args).await
    }

    /// MKNOD.
    pub async fn mknod(
        &self,
        dir: &Fh3,
        name: impl Into<Filename3>,
        what: Mknoddata3,
    ) -> Result<CreateOk> {
        let args = MknodArgs {
            place: place(dir, name)?,
            what,
        };
        self.checked::<_, _, WccData>(Proc3::Mknod, &args).await
    }

    /// REMOVE.
    pub async fn remove(&self, dir: &Fh3, name: impl Into<Filename3>) -> Result<WccData> {
        let args = RemoveArgs {
            object: place(dir, name)?,
        };
        self.checked::<_, _, WccData>(Proc3::Remove, &args).await
    }

    /// RMDIR.
    pub async fn rmdir(&self, dir: &Fh3, name: impl Into<Filename3>) -> Result<WccData> {
        let args = RmdirArgs {
            object: place(dir, name)?,
        };
        self.checked::<_, _, WccData>(Proc3::Rmdir, &args).await
    }

    /// RENAME.
    pub async fn rename(
        &self,
        from_dir: &Fh3,
        from_name: impl Into<Filename3>,
        to_dir: &Fh3,
        to_name: impl Into<Filename3>,
    ) -> Result<RenameWcc> {
        let args = RenameArgs {
            from: place(from_dir, from_name)?,
            to: place(to_dir, to_name)?,
        };
        self.checked::<_, _, RenameWcc>(Proc3::Rename, &args).await
    }

    /// LINK: another name for `file`.
    pub async fn link(&self, file: &Fh3, dir: &Fh3, name: impl Into<Filename3>) -> Result<LinkWcc> {
        let args = LinkArgs {
            file: handle(file)?,
            link: place(dir, name)?,
        };
        self.checked::<_, _, LinkWcc>(Proc3::Link, &args).await
    }

    /// READDIR: one call, from after `cookie` on, at most `count` bytes.
    pub async fn readdir(
        &self,
        dir: &Fh3,
        cookie: Cookie3,
        cookieverf: Cookieverf3,
        count: u32,
    ) -> Result<ReaddirOk> {
        check_len("count", count as usize, DATA_BYTES_MAX)?;
        let args = ReaddirArgs {
            dir: handle(dir)?,
            cookie,
            cookieverf,
            count,
        };
        self.checked::<_, _, PostOpAttr>(Proc3::Readdir, &args)
            .await
    }

    /// READDIRPLUS: one call, from after `cookie` on, at most `maxcount` bytes.
    pub async fn readdirplus(
        &self,
        dir: &Fh3,
        cookie: Cookie3,
        cookieverf: Cookieverf3,
        dircount: u32,
        maxcount: u32,
    ) -> Result<ReaddirplusOk> {
        check_len("maxcount", maxcount as usize, DATA_BYTES_MAX)?;
        let args = ReaddirplusArgs {
            dir: handle(dir)?,
            cookie,
            cookieverf,
            dircount,
            maxcount,
        };
        self.checked::<_, _, PostOpAttr>(Proc3::Readdirplus, &args)
            .await
    }

    /// FSSTAT.
    pub async fn fsstat(&self, fsroot: &Fh3) -> Result<FsstatOk> {
        let args = FsstatArgs {
            fsroot: handle(fsroot)?,
        };
        self.checked::<_, _, PostOpAttr>(Proc3::Fsstat, &args).await
    }

    /// FSINFO.
    pub async fn fsinfo(&self, fsroot: &Fh3) -> Result<FsinfoOk> {
        let args = FsinfoArgs {
            fsroot: handle(fsroot)?,
        };
        self.checked::<_, _, PostOpAttr>(Proc3::Fsinfo, &args).await
    }

    /// PATHCONF.
    pub async fn pathconf(&self, object: &Fh3) -> Result<PathconfOk> {
        let args = PathconfArgs {
            object: handle(object)?,
        };
        self.checked::<_, _, PostOpAttr>(Proc3::Pathconf, &args)
            .await
    }

    /// COMMIT; `count` 0: all from `offset` on.
    pub async fn commit(&self, file: &Fh3, offset: u64, count: u32) -> Result<CommitOk> {
        let args = CommitArgs {
            file: handle(file)?,
            offset,
            count,
        };
        self.checked::<_, _, WccData>(Proc3::Commit, &args).await
    }

    /// Calls a procedure and turns a failure into its status.
    async fn checked<A: Encode, T: Decode, F: Decode>(&self, proc: Proc3, args: &A) -> Result<T> {
        let res: Res3<T, F> = self.nfs(proc, args).await?;
        Ok(res.ok_or_status()?)
    }
}

fn handle(fh: &Fh3) -> Result<Fh3> {
    check_len("file handle", fh.0.len(), FHSIZE)?;
    Ok(fh.clone())
}

fn place(dir: &Fh3, name: impl Into<Filename3>) -> Result<Diropargs3> {
    let name = name.into();
    check_len("name", name.0.len(), FILENAME_BYTES_MAX)?;
    Ok(Diropargs3 {
        dir: handle(dir)?,
        name,
    })
}
