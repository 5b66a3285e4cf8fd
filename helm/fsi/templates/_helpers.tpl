{{/* In front of every name. */}}
{{- define "fsi.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "fsi.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "fsi.selector" -}}
app.kubernetes.io/name: fsi
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "fsi.labels" -}}
{{ include "fsi.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* The agent's configuration: what the chart sets, and `agent.config` over it. */}}
{{- define "fsi.config" -}}
{{- $config := dict "version" 1 -}}
{{- $_ := set $config "kubernetes" (dict "enabled" true "kubelet_root" .Values.kubeletDir) -}}
{{- $_ := set $config "metrics" (dict "listen" (printf "0.0.0.0:%d" (int .Values.agent.metrics.port))) -}}
{{- $_ := set $config "log" (dict "format" "json") -}}
{{- if .Values.agent.otlp.url -}}
{{- $_ := set $config "otlp" (list (dict "url" .Values.agent.otlp.url)) -}}
{{- end -}}
{{- if .Values.agent.spool.size -}}
{{- $_ := set $config "spool" (dict "directory" "/var/lib/fsi/spool" "size" .Values.agent.spool.size) -}}
{{- end -}}
{{ toYaml (mergeOverwrite $config (deepCopy .Values.agent.config)) }}
{{- end -}}

{{/* What pods of every node have in common. */}}
{{- define "fsi.onNodes" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "fsi.scrape" -}}
{{- if .root.Values.monitoring.annotations }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- with .root.Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}
