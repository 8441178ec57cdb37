//! The names of errno values (errno(3)).

macro_rules! names {
    ($($name:ident)*) => {
        /// The name of an errno: `ECONNREFUSED`; of one that dials never meet, its
        /// number.
        #[must_use]
        pub fn name(errno: i32) -> String {
            match errno {
                $(libc::$name => stringify!($name).to_owned(),)*
                other => format!("errno {other}"),
            }
        }
    };
}

names! {
    EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF ECONNABORTED
    ECONNREFUSED ECONNRESET EDESTADDRREQ EEXIST EHOSTDOWN EHOSTUNREACH EINPROGRESS EINTR EINVAL EIO EISCONN
    ELOOP EMFILE EMSGSIZE ENAMETOOLONG ENETDOWN ENETRESET ENETUNREACH ENFILE ENOBUFS
    ENODEV ENOENT ENOMEM ENOPROTOOPT ENOSPC ENOTCONN ENOTDIR ENOTSOCK ENXIO EOPNOTSUPP EPERM
    EPIPE EPROTO EPROTONOSUPPORT EPROTOTYPE EROFS ESPIPE ESOCKTNOSUPPORT ETIMEDOUT
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_errno_has_its_name() {
        assert_eq!(super::name(libc::ECONNREFUSED), "ECONNREFUSED");
        assert_eq!(super::name(4095), "errno 4095");
    }
}
