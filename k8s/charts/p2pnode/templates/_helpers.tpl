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

{{/* The node's configuration. */}}
{{- define "p2pnode.config" -}}
{{- $own := dict
  "identity" (dict "key_file" "/var/lib/p2pnode/identity.key")
  "dial" (dict "port_range" .Values.ports.range "ports_per_ordinal" .Values.ports.perOrdinal)
  "relays" .Values.relays
  "admin" (dict "listen" (printf "%s:%d" (ternary "127.0.0.1" "0.0.0.0" (eq .Values.network "host")) (int .Values.admin.port)))
  "control" (dict "socket" "/run/p2pnode/control.sock")
  "log" (dict "format" "json") -}}
{{- if eq .Values.publicIp.from "value" -}}
{{- $family := ternary "ip6" "ip4" (contains ":" .Values.publicIp.value) -}}
{{- $host := printf "/%s/%s" $family .Values.publicIp.value -}}
{{- $_ := set $own "punch" (dict "advertise" (list (printf "%s/udp/{port}/quic-v1" $host) (printf "%s/tcp/{port}" $host))) -}}
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
