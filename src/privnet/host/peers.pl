# Managed by privnet. peers.pl answering SECONDS | lost SECONDS FILE: asks all peers at once whether they answer over the mesh.
# `answering` says which do, and whether packets as large as containers send them are answered too; `lost` says which of
# those in FILE, which `answering` has written before a change, are still peers and do not answer any more. Neither waits
# longer than SECONDS, nor longer than it takes them all to answer. A host may answer no ping: then what WireGuard hears of it
# counts. Needs perl-base alone, which is on every Debian host.
use strict;
use warnings;
use POSIX ();
use Socket;

my $ICMP = 1;
my $OVER_VXLAN = 50;
my $DISCOVER = 10;    # IP_MTU_DISCOVER: nothing is to cut what is too large (ip(7))
my $NEVER_CUT = 2;
my $AGAIN_SECONDS = 0.5;
my $TURN_SECONDS = 0.3;
my $SESSION_SECONDS = 120;    # after which WireGuard makes a new one before it sends (REKEY_AFTER_TIME)
my $IP_HEADER = 20;
my $KEEPALIVE_SECONDS = 12;    # after 10 s WireGuard answers what nobody else has answered (KEEPALIVE_TIMEOUT)

my ($word, $seconds, $file) = @ARGV;

# --- who is asked -----------------------------------------------------------------------------------

my (%peers, $own);
{
	my %age = handshakes();
	for my $line (lines('wg', 'show', 'privnet', 'allowed-ips')) {
		my ($key, $address) = $line =~ m{^(\S+)\s+([0-9.]+)/32$} or next;
		$peers{$address} = { key => $key, fresh => time - ($age{$key} // 0) < $SESSION_SECONDS };
	}
	($own) = map { m{ inet ([0-9.]+)/} } lines('ip', '-4', '-o', 'address', 'show', 'dev', 'privnet');
	my %sizes = sizes();
	$peers{$_}{size} = $sizes{$_} for keys %peers;
}

my (%before, @told);
if ($word eq 'lost') {
	open my $kept, '<', $file or exit 0;
	while (<$kept>) {
		my ($key, $address, $large) = split;
		my ($now) = grep { $peers{$_}{key} eq $key } keys %peers;
		$now //= $address if $peers{$address};
		$before{$now} = $large if defined $now;
	}
	# Who heard a question before the change may send to where that came from, until it hears of this host again.
	@told = grep { !exists $before{$_} } keys %peers;
	%peers = map { $_ => $peers{$_} } keys %before;
	# What has to wait for WireGuard's own answer needs time for it.
	delete $peers{$_} for grep { $before{$_} eq 'heard' && $seconds < $KEEPALIVE_SECONDS } keys %peers;
	# What was not answered when it was large may have had other reasons, and have them still.
	delete $peers{$_}{size} for grep { $before{$_} ne 'large' } keys %peers;
}

sub handshakes { return map { split } lines('wg', 'show', 'privnet', 'latest-handshakes') }

# By key, what has come.
sub received { return map { (split)[0, 1] } lines('wg', 'show', 'privnet', 'transfer') }

sub lines {
	open my $out, '-|', @_ or return;
	chomp(my @found = <$out>);
	return @found;
}

# The largest packet to each peer, from where containers are.
sub sizes {
	my %found;
	for my $path (glob '/etc/privnet/overlay/*.fdb') {
		my ($mtu) = map { /^MTU=([0-9]+)$/ } contents($path =~ s/fdb$/conf/r);
		for my $address (map { / dst ([0-9.]+) / } contents($path)) {
			my $size = ($mtu // 0) + $OVER_VXLAN;
			$found{$address} = $size if $mtu && $size > ($found{$address} // 0);
		}
	}
	return %found;
}

sub contents {
	open my $in, '<', $_[0] or return;
	return <$in>;
}

# --- questions and answers --------------------------------------------------------------------------

socket my $socket, PF_INET, SOCK_RAW, $ICMP or die "no socket: $!\n";
setsockopt $socket, 0, $DISCOVER, pack 'i', $NEVER_CUT or die "no setting: $!\n";
setsockopt $socket, SOL_SOCKET, SO_RCVBUF, pack 'i', 8 * 1024 * 1024;

# By address: what is not answered yet. The number of a question is 0 where it is small.
my %open = map { $_ => { 0 => 28, $peers{$_}{size} ? (1 => $peers{$_}{size}) : () } } keys %peers;
my $ends = now() + $seconds;
my $begun = now();
my $id = $$ & 0xffff;
my (%received, %handshakes) = ();
%received = received();
%handshakes = handshakes();
send $socket, question(0, 28), 0, pack_sockaddr_in(0, inet_aton($_)) for @told;
while (%open && now() < $ends) {
	for my $address (keys %open) {
		# When both sides of a pair begin a session at once, both can fail, and wait for 5 s.
		my $waits = !$peers{$address}{fresh} && inet_aton($address) lt inet_aton($own // '0.0.0.0');
		next if $waits && now() < $begun + $TURN_SECONDS;
		# What cannot be sent is not answered.
		send $socket, question($_, $open{$address}{$_}), 0, pack_sockaddr_in(0, inet_aton($address))
			for keys %{ $open{$address} };
	}
	hear(smaller($AGAIN_SECONDS, $ends - now()));
	my @quiet = grep { ($before{$_} // '') eq 'heard' } keys %open or next;
	delete @open{ heard(@quiet) };
}

# Who has sent something since the beginning.
sub heard {
	my (%now, %then) = ();
	%now = received();
	%then = handshakes();
	return grep {
		my $key = $peers{$_}{key};
		($now{$key} // 0) > ($received{$key} // 0) || ($then{$key} // 0) > ($handshakes{$key} // 0)
	} @_;
}

sub question {
	my ($number, $size) = @_;
	my $packet = pack 'C C n n n a*', 8, 0, 0, $id, $number, "\0" x ($size - $IP_HEADER - 8);
	my $sum = unpack '%32n*', $packet . ($size % 2 ? "\0" : '');
	$sum = ($sum & 0xffff) + ($sum >> 16) for 1, 2;
	substr $packet, 2, 2, pack 'n', ~$sum & 0xffff;
	return $packet;
}

sub hear {
	my $until = now() + $_[0];
	while (%open && (my $left = $until - now()) > 0) {
		vec(my $ready = '', fileno $socket, 1) = 1;
		select $ready, undef, undef, $left or last;
		my $from = recv $socket, my $packet, 65535, 0 or next;
		my ($type, undef, undef, $whose, $number) = unpack 'C C n n n', substr $packet, 4 * (ord($packet) & 15);
		next if !defined $number || $type != 0 || $whose != $id;
		my $address = inet_ntoa((unpack_sockaddr_in($from))[1]);
		next if !$open{$address};
		delete $open{$address}{$number};
		delete $open{$address} if !%{ $open{$address} };
	}
}

sub now { return (POSIX::times())[0] / POSIX::sysconf(POSIX::_SC_CLK_TCK()) }

sub smaller { return $_[0] < $_[1] ? $_[0] : $_[1] }

my %heard = map { $_ => 1 } $word eq 'answering' ? heard(grep { exists(($open{$_} // {})->{0}) } keys %peers) : ();
for my $address (sort keys %peers) {
	my $left = $open{$address} // {};
	my $how = exists $left->{0} ? 'silent' : exists $left->{1} ? 'small' : $peers{$address}{size} ? 'large' : 'small';
	$how = 'heard' if $heard{$address};
	if ($word eq 'answering') {
		print "$peers{$address}{key} $address $how\n" if $how ne 'silent';
	} elsif (%$left) {
		print "lost $address $how\n";
	}
}
