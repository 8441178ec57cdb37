use super::*;
use std::io::{Read, Write};
use std::mem::{offset_of, size_of};
use std::net::{TcpListener, TcpStream};

use proptest::prelude::*;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn offset(field: &str) -> usize {
    OFFSETS.iter().find(|(name, _)| *name == field).unwrap().1
}

/// struct tcp_info of linux/tcp.h as it was when Linux 5.4 was new, in the C types.
#[repr(C)]
struct Linux54 {
    _bytes: [u8; 8],
    _words: [u32; 24],
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivery_rate: u64,
    busy_time: u64,
    rwnd_limited: u64,
    sndbuf_limited: u64,
    delivered: u32,
    delivered_ce: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
    dsack_dups: u32,
    reord_seen: u32,
    rcv_ooopack: u32,
    snd_wnd: u32,
}

#[test]
fn the_head_lies_where_libc_has_it() {
    macro_rules! same {
        ($($field:literal = $theirs:ident,)*) => {
            $(assert_eq!(offset($field), offset_of!(libc::tcp_info, $theirs), $field);)*
        };
    }
    same! {
        "state" = tcpi_state,
        "ca_state" = tcpi_ca_state,
        "retransmits" = tcpi_retransmits,
        "probes" = tcpi_probes,
        "backoff" = tcpi_backoff,
        "options" = tcpi_options,
        "rto_us" = tcpi_rto,
        "ato_us" = tcpi_ato,
        "snd_mss" = tcpi_snd_mss,
        "rcv_mss" = tcpi_rcv_mss,
        "unacked" = tcpi_unacked,
        "sacked" = tcpi_sacked,
        "lost" = tcpi_lost,
        "retrans" = tcpi_retrans,
        "fackets" = tcpi_fackets,
        "last_data_sent_ms" = tcpi_last_data_sent,
        "last_data_recv_ms" = tcpi_last_data_recv,
        "last_ack_recv_ms" = tcpi_last_ack_recv,
        "pmtu" = tcpi_pmtu,
        "rcv_ssthresh" = tcpi_rcv_ssthresh,
        "rtt_us" = tcpi_rtt,
        "rttvar_us" = tcpi_rttvar,
        "snd_ssthresh" = tcpi_snd_ssthresh,
        "snd_cwnd" = tcpi_snd_cwnd,
        "advmss" = tcpi_advmss,
        "reordering" = tcpi_reordering,
        "rcv_rtt_us" = tcpi_rcv_rtt,
        "rcv_space" = tcpi_rcv_space,
        "total_retrans" = tcpi_total_retrans,
    }
    assert_eq!(HEAD, offset("total_retrans") + 4);
}

#[test]
fn what_came_later_lies_where_the_kernel_header_has_it() {
    macro_rules! same {
        ($($field:literal = $theirs:ident,)*) => {
            $(assert_eq!(offset($field), offset_of!(Linux54, $theirs), $field);)*
        };
    }
    same! {
        "pacing_rate" = pacing_rate,
        "max_pacing_rate" = max_pacing_rate,
        "bytes_acked" = bytes_acked,
        "bytes_received" = bytes_received,
        "segs_out" = segs_out,
        "segs_in" = segs_in,
        "notsent_bytes" = notsent_bytes,
        "min_rtt_us" = min_rtt,
        "data_segs_in" = data_segs_in,
        "data_segs_out" = data_segs_out,
        "delivery_rate" = delivery_rate,
        "busy_time_us" = busy_time,
        "rwnd_limited_us" = rwnd_limited,
        "sndbuf_limited_us" = sndbuf_limited,
        "delivered" = delivered,
        "delivered_ce" = delivered_ce,
        "bytes_sent" = bytes_sent,
        "bytes_retrans" = bytes_retrans,
        "dsack_dups" = dsack_dups,
        "reord_seen" = reord_seen,
        "rcv_ooopack" = rcv_ooopack,
        "snd_wnd" = snd_wnd,
    }
    assert_eq!(offset("rcv_wnd"), size_of::<Linux54>());
}

#[test]
fn an_idle_connection_has_seen_its_syn_ack_alone() {
    let (client, _server) = pair();
    let info = TcpInfo::of(&client).unwrap();
    assert_eq!((info.state, info.total_retrans, info.segs_in), (1, 0, Some(1)));
    assert!(info.rtt_us > 0 && info.rtt_us < 1_000_000, "{info:?}");
    assert!(info.snd_cwnd > 0 && info.snd_mss > 0 && info.rto_us >= 200_000);
}

#[test]
fn bytes_are_counted_at_both_ends() {
    let (mut client, mut server) = pair();
    client.write_all(&[7; 5_000]).unwrap();
    server.read_exact(&mut [0; 5_000]).unwrap();
    server.write_all(b"ok").unwrap();
    client.read_exact(&mut [0; 2]).unwrap();
    let at_client = TcpInfo::of(&client).unwrap();
    let at_server = TcpInfo::of(&server).unwrap();
    assert_eq!(at_server.bytes_received, Some(5_000));
    assert_eq!((at_client.bytes_received, at_client.bytes_sent), (Some(2), Some(5_000)));
    // The SYN counts as one byte acknowledged.
    assert_eq!(at_client.bytes_acked, Some(5_001));
    assert_eq!((at_client.bytes_retrans, at_client.notsent_bytes), (Some(0), Some(0)));
    assert!(at_client.data_segs_out >= Some(1) && at_client.data_segs_in == Some(1));
    assert!(at_client.last_data_recv_ms < 60_000);
    // Both shifts come from tcp_rmem, which is the same at both ends here.
    assert_eq!(at_client.snd_wscale, at_server.rcv_wscale);
    assert_eq!(at_client.rcv_wscale, at_server.snd_wscale);
}

#[test]
fn a_socket_of_another_kind_has_none() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(TcpInfo::of(&socket).is_err());
}

#[test]
fn an_older_kernel_leaves_the_newer_fields_out() {
    let bytes = [1_u8; 280];
    let whole = TcpInfo::parse(&bytes).unwrap();
    assert_eq!(whole.total_rto_time_ms, Some(0x0101_0101));
    let of_4_2 = TcpInfo::parse(&bytes[..144]).unwrap();
    assert_eq!((of_4_2.segs_in, of_4_2.notsent_bytes), (Some(0x0101_0101), None));
    let cut = TcpInfo::parse(&bytes[..143]).unwrap();
    assert_eq!((cut.segs_in, cut.segs_out), (None, Some(0x0101_0101)));
    assert_eq!(TcpInfo::parse(&bytes[..103]), None);
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(TcpInfo::parse(&bytes).is_some(), bytes.len() >= HEAD);
    }
}
