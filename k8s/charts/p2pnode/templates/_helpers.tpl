{{- define "p2pnode.selector" -}}
app.kubernetes.io/name: p2pnode
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "p2pnode.labels" -}}
{{ include "p2pnode.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "p2pnode.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The first and the last port, and how many pods have ports of their own; what cannot be is told. */}}
{{- define "p2pnode.ports" -}}
{{- $ends := splitList "-" .Values.ports.range -}}
{{- $first := index $ends 0 | int -}}
{{- $last := index $ends 1 | int -}}
{{- $each := int .Values.ports.perOrdinal -}}
{{- $replicas := int .Values.replicas -}}
{{- $size := add1 (sub $last $first) | int -}}
{{- if gt $last 65535 }}{{ fail (printf "ports.range %s: a port is at most 65535" .Values.ports.range) }}{{ end -}}
{{- if lt $last $first }}{{ fail (printf "ports.range %s: the last port is below the first" .Values.ports.range) }}{{ end -}}
{{- $pods := $replicas -}}
{{- if gt $each 0 -}}
{{- $pods = div $size $each | int -}}
{{- if lt $pods $replicas }}{{ fail (printf "replicas %d: ports.range %s is enough for %d pods with ports.perOrdinal %d; widen the range, or give each pod fewer" $replicas .Values.ports.range $pods $each) }}{{ end -}}
{{- else if and (gt $replicas 1) (eq .Values.network "pod") -}}
{{ fail (printf "replicas %d with ports.perOrdinal 0: the pods are behind one NAT and would use the same ports; set ports.perOrdinal" $replicas) }}
{{- end -}}
{{- $admin := int .Values.admin.port -}}
{{- if and (ge $admin $first) (le $admin $last) }}{{ fail (printf "admin.port %d is in ports.range %s, whose ports are for dialing; take one outside it" $admin .Values.ports.range) }}{{ end -}}
{{- dict "first" $first "last" $last "pods" $pods | toYaml -}}
{{- end }}

{{/* The forwards, each with the port of the pods and the name of the Service in the release's namespace; what cannot be is told. */}}
{{- define "p2pnode.forwards" -}}
{{- $ports := include "p2pnode.ports" . | fromYaml -}}
{{- $used := dict "admin" (printf "TCP/%d" (int .Values.admin.port)) -}}
{{- $all := list -}}
{{- range .Values.forwards -}}
{{- $port := int (.podPort | default .port) -}}
{{- $protocol := .protocol | default "TCP" -}}
{{- $full := ternary (printf "%s-%s" .name .namespace) .name (not (empty .namespace)) -}}
{{- $key := printf "%s/%d" $protocol $port -}}
{{- if lt $port 1024 }}{{ fail (printf "forwards: %s has port %d, on which the pods may not listen; set podPort to one from 1024 on" $full $port) }}{{ end -}}
{{- if and (ge $port (int $ports.first)) (le $port (int $ports.last)) }}{{ fail (printf "forwards: port %d of %s is in ports.range %s, whose ports are for dialing; set podPort to one outside it" $port $full $.Values.ports.range) }}{{ end -}}
{{- range $name, $other := $used }}{{ if eq $other $key }}{{ fail (printf "forwards: %s and %s both have port %d of the pods; set podPort of one" $full $name $port) }}{{ end }}{{ end -}}
{{- if or (hasKey $used $full) (eq $full $.Release.Name) }}{{ fail (printf "forwards: there are two Services %s; name or namespace have to differ" $full) }}{{ end -}}
{{- if and (eq $.Values.network "host") (empty $.Values.forwardAddress) }}{{ fail (printf "forwards: %s would be open to whoever reaches the node; set forwardAddress to an address that only clients reach, or to 0.0.0.0" $full) }}{{ end -}}
{{- $_ := set $used $full $key -}}
{{- $listen := printf "%s://%s:%d" (lower $protocol) ($.Values.forwardAddress | default "0.0.0.0") $port -}}
{{- $all = append $all (dict "service" $full "podPort" $port "portName" (printf (ternary "forward-u-%d" "forward-%d" (eq $protocol "UDP")) $port) "protocol" $protocol "listen" $listen "name" .name "namespace" (.namespace | default "") "port" (int .port) "to" .to) -}}
{{- end -}}
{{- dict "all" $all | toYaml -}}
{{- end }}

{{/* The node's configuration. */}}
{{- define "p2pnode.config" -}}
{{- $own := dict
  "identity" (dict "key_file" "/var/lib/p2pnode/identity.key")
  "dial" (dict "port_range" .Values.ports.range "ports_per_ordinal" .Values.ports.perOrdinal)
  "relays" .Values.relays
  "admin" (dict "listen" (printf "0.0.0.0:%d" (int .Values.admin.port)) "page" .Values.admin.page)
  "control" (dict "socket" "/run/p2pnode/control.sock")
  "log" (dict "format" "json") -}}
{{- if eq .Values.publicIp.from "value" -}}
{{- $family := ternary "ip6" "ip4" (contains ":" .Values.publicIp.value) -}}
{{- $host := printf "/%s/%s" $family .Values.publicIp.value -}}
{{- $_ := set $own "punch" (dict "advertise" (list (printf "%s/udp/{port}/quic-v1" $host) (printf "%s/tcp/{port}" $host))) -}}
{{- end -}}
{{- with .Values.services }}{{- $_ := set $own "services" . }}{{- end -}}
{{- with .Values.mappings }}{{- $_ := set $own "mappings" . }}{{- end -}}
{{- with .Values.expose }}{{- $_ := set $own "expose" . }}{{- end -}}
{{- with (include "p2pnode.forwards" . | fromYaml).all -}}
{{- $forwards := list -}}
{{- range . }}{{- $forwards = append $forwards (dict "listen" .listen "to" .to) }}{{- end -}}
{{- $_ := set $own "forwards" $forwards -}}
{{- end -}}
{{- mergeOverwrite $own (deepCopy .Values.config) | toYaml -}}
{{- end }}

{{- define "p2pnode.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "p2pnode.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
# Else each start would let the group read and write the key, and a key that others can read is refused.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- if eq .Values.network "pod" }}
sysctls:
  # Nothing else in the pod is given a port of the range by chance.
  - name: net.ipv4.ip_local_reserved_ports
    value: {{ .Values.ports.range | quote }}
{{- end }}
{{- end }}
